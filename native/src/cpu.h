// What this CPU and its operating system let a program execute.

#pragma once

#include <cstdint>

namespace lucid {

enum Feature : std::uint64_t {
  // x86-64. Those of AVX-512 and AMX count only when the operating system saves their registers.
  kAvx2 = 1u << 0,    // with FMA and F16C
  kAvx512 = 1u << 1,  // F, BW, DQ and VL
  kAvx512Vnni = 1u << 2,
  kAvx512Vbmi = 1u << 3,
  kAvx512Bf16 = 1u << 4,
  kAvx512Fp16 = 1u << 5,
  kAvxVnni = 1u << 6,
  kAmxInt8 = 1u << 7,
  kAmxBf16 = 1u << 8,
  // AArch64.
  kNeon = 1u << 16,
  kDotprod = 1u << 17,
  kI8mm = 1u << 18,
  kNeonBf16 = 1u << 19,
};

// Bits of Feature; asks once a process, for permission to use AMX too.
std::uint64_t cpu_features();

// Processors that this process may run on, at least 1.
int available_cpus();

}  // namespace lucid
