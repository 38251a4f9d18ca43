// AMX for the kernels that use it: real, or in plain C++ for tests (LUCID_EMULATE_AMX).

#pragma once

#include <cstdint>

#include "../cpu.h"
#include "intrinsics.h"

#ifdef LUCID_EMULATE_AMX
#include "../../tests/amx_emulation.h"
#endif

namespace lucid {

// What a CPU must have, of the features of AMX that a set names.
constexpr std::uint64_t amx_features(std::uint64_t features) {
#ifdef LUCID_EMULATE_AMX
  return features & 0;
#else
  return features;
#endif
}

}  // namespace lucid
