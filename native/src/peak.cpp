#include "peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>

#include "cpu.h"
#include "dispatch.h"
#include "float_mode.h"
#include "memory.h"

// Loops are assembly: they need no compiler flags of their own, and no compiler moves, splits or
// leaves out what is to be measured. Each register of sums is written once a round, so that rounds
// depend on each other but the sums of a round do not.

namespace lucid {
namespace {

using Loop = void (*)(const char* data, std::int64_t rounds);

struct Row {
  Precision precision;
  const char* isa;
  std::uint64_t features;
  const char* instruction;
  double multiply_adds;  // of a round
  Loop loop;
};

struct Loads {
  std::uint64_t features;
  std::size_t bytes;  // of a round
  Loop loop;
};

#if defined(__GNUC__) && defined(__x86_64__)

// Registers; more than the latency of any instruction here times how many start in a cycle.
constexpr int kSums = 12;

#define LUCID_SUMS "0,1,2,3,4,5,6,7,8,9,10,11"
#define LUCID_CLOBBERS                                                                            \
  "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
      "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

// `instructions` for each register of sums; 12 and 13 hold the factors, 15 holds
// ones of 16 bits, 14 is free.
#define LUCID_PEAK_LOOP(name, width, instructions)                 \
  void name(const char* data, std::int64_t rounds) {               \
    __asm__ volatile(                                              \
        ".irp sum," LUCID_SUMS ",12,13\n\t"                        \
        "vmovups \\sum*64(%[data]), %%" width "mm\\sum\n\t"        \
        ".endr\n\t"                                                \
        "vpcmpeqw %%ymm15, %%ymm15, %%ymm15\n\t"                   \
        "vpabsw %%ymm15, %%ymm15\n\t"                              \
        "1:\n\t"                                                   \
        ".irp sum," LUCID_SUMS "\n\t" instructions "\n\t.endr\n\t" \
        "dec %[rounds]\n\t"                                        \
        "jnz 1b\n\t"                                               \
        "vzeroupper"                                               \
        : [rounds] "+r"(rounds)                                    \
        : [data] "r"(data)                                         \
        : LUCID_CLOBBERS);                                         \
  }

LUCID_PEAK_LOOP(fma_zmm, "z", "vfmadd231ps %%zmm12, %%zmm13, %%zmm\\sum")
LUCID_PEAK_LOOP(fma_ymm, "y", "vfmadd231ps %%ymm12, %%ymm13, %%ymm\\sum")
LUCID_PEAK_LOOP(bf16_zmm, "z", "vdpbf16ps %%zmm12, %%zmm13, %%zmm\\sum")
LUCID_PEAK_LOOP(vnni_zmm, "z", "vpdpbusd %%zmm12, %%zmm13, %%zmm\\sum")
LUCID_PEAK_LOOP(vnni_ymm, "y", "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm\\sum")
LUCID_PEAK_LOOP(pairs_ymm, "y",
                "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n\t"
                "vpmaddwd %%ymm14, %%ymm15, %%ymm14\n\t"
                "vpaddd %%ymm14, %%ymm\\sum, %%ymm\\sum")

constexpr double kTileProducts = 16 * 16 * 16;  // times the values in 32 bits

// Eight tiles of 16 rows of 64 bytes.
struct alignas(64) Tiles {
  std::uint8_t palette = 1;
  std::uint8_t unused[15] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Two tiles by two, as the kernels multiply them.
#define LUCID_TILE_LOOP(name, instruction)                                  \
  void name(const char* data, std::int64_t rounds) {                        \
    const Tiles tiles;                                                      \
    __asm__ volatile(                                                       \
        "ldtilecfg %[tiles]\n\t"                                            \
        ".irp tile,0,1,2,3,4,5,6,7\n\t"                                     \
        "tileloadd \\tile*1024(%[data],%[row]), %%tmm\\tile\n\t"            \
        ".endr\n\t"                                                         \
        "1:\n\t" instruction " %%tmm6, %%tmm4, %%tmm0\n\t" instruction      \
        " %%tmm7, %%tmm4, %%tmm1\n\t" instruction                           \
        " %%tmm6, %%tmm5, %%tmm2\n\t" instruction                           \
        " %%tmm7, %%tmm5, %%tmm3\n\t"                                       \
        "dec %[rounds]\n\t"                                                 \
        "jnz 1b\n\t"                                                        \
        "tilerelease"                                                       \
        : [rounds] "+r"(rounds)                                             \
        : [data] "r"(data), [row] "r"(std::int64_t{64}), [tiles] "m"(tiles) \
        : "cc", "memory");                                                  \
  }

LUCID_TILE_LOOP(tiles_int8, "tdpbusd")
LUCID_TILE_LOOP(tiles_bf16, "tdpbf16ps")

constexpr Row kRows[] = {
    {Precision::kInt8, "amx", kAmxInt8, "tdpbusd", 4 * 4 * kTileProducts, tiles_int8},
    {Precision::kInt8, "avx512vnni", kAvx512Vnni, "vpdpbusd zmm", kSums * 64, vnni_zmm},
    {Precision::kInt8, "avxvnni", kAvxVnni, "vpdpbusd ymm", kSums * 32, vnni_ymm},
    {Precision::kInt8, "avx2", kAvx2, "vpmaddubsw + vpmaddwd + vpaddd", kSums * 32, pairs_ymm},
    {Precision::kFloat32, "avx512", kAvx512, "vfmadd231ps zmm", kSums * 16, fma_zmm},
    {Precision::kFloat32, "avx2", kAvx2, "vfmadd231ps ymm", kSums * 8, fma_ymm},
    {Precision::kBfloat16, "amx", kAmxBf16, "tdpbf16ps", 4 * 2 * kTileProducts, tiles_bf16},
    {Precision::kBfloat16, "avx512bf16", kAvx512Bf16, "vdpbf16ps zmm", kSums * 32, bf16_zmm},
    {Precision::kBfloat16, "avx2", kAvx2, "vfmadd231ps ymm", kSums * 8, fma_ymm},
    // Three products of bfloat16 for one of float32.
    {Precision::kFloat32Split, "amx", kAmxBf16, "3 tdpbf16ps", 4 * 2 * kTileProducts / 3,
     tiles_bf16},
};

#define LUCID_LOAD_LOOP(name, width, bytes)                    \
  void name(const char* data, std::int64_t rounds) {           \
    __asm__ volatile(                                          \
        "1:\n\t"                                               \
        ".irp k,0,1,2,3,4,5,6,7\n\t"                           \
        "vmovups \\k*" bytes "(%[data]), %%" width "mm\\k\n\t" \
        ".endr\n\t"                                            \
        "add $8*" bytes ", %[data]\n\t"                        \
        "dec %[rounds]\n\t"                                    \
        "jnz 1b\n\t"                                           \
        "vzeroupper"                                           \
        : [rounds] "+r"(rounds), [data] "+r"(data)             \
        :                                                      \
        : LUCID_CLOBBERS);                                     \
  }

LUCID_LOAD_LOOP(load_zmm, "z", "64")
LUCID_LOAD_LOOP(load_ymm, "y", "32")

constexpr Loads kLoads[] = {{kAvx512, 512, load_zmm}, {kAvx2, 256, load_ymm}};

#elif defined(__GNUC__) && defined(__aarch64__)

constexpr int kSums = 20;

#define LUCID_SUMS "0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23,24,25,26,27"
#define LUCID_CLOBBERS                                                                        \
  "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", \
      "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31"

// `instructions` for each register of sums; 28 and 29 hold the factors, 30 and 31 are free.
#define LUCID_PEAK_LOOP(name, instructions)                        \
  void name(const char* data, std::int64_t rounds) {               \
    __asm__ volatile(                                              \
        ".irp sum," LUCID_SUMS ",28,29\n\t"                        \
        "ldr q\\sum, [%[data], #\\sum*16]\n\t"                     \
        ".endr\n\t"                                                \
        "1:\n\t"                                                   \
        ".irp sum," LUCID_SUMS "\n\t" instructions "\n\t.endr\n\t" \
        "subs %[rounds], %[rounds], #1\n\t"                        \
        "b.ne 1b"                                                  \
        : [rounds] "+r"(rounds)                                    \
        : [data] "r"(data)                                         \
        : LUCID_CLOBBERS);                                         \
  }

LUCID_PEAK_LOOP(fmla, "fmla v\\sum\\().4s, v28.4s, v29.4s")
// In numbers, since assemblers know them only behind flags: sdot v0.4s, v28.16b, v29.16b and usmmla
// of the same, with the register of sums in the lowest bits.
LUCID_PEAK_LOOP(sdot, ".inst 0x4e9d9780 + \\sum")
LUCID_PEAK_LOOP(usmmla, ".inst 0x4e9daf80 + \\sum")
LUCID_PEAK_LOOP(pairs,
                "smull v30.8h, v28.8b, v29.8b\n\t"
                "smlal2 v30.8h, v28.16b, v29.16b\n\t"
                "sadalp v\\sum\\().4s, v30.8h")

constexpr Row kRows[] = {
    {Precision::kInt8, "i8mm", kI8mm, "usmmla", kSums * 32, usmmla},
    {Precision::kInt8, "dotprod", kDotprod, "sdot", kSums * 16, sdot},
    {Precision::kInt8, "neon", kNeon, "smull + smlal + sadalp", kSums * 16, pairs},
    {Precision::kFloat32, "neon", kNeon, "fmla", kSums * 4, fmla},
};

void load_q(const char* data, std::int64_t rounds) {
  __asm__ volatile(
      "1:\n\t"
      "ldp q0, q1, [%[data]]\n\t"
      "ldp q2, q3, [%[data], #32]\n\t"
      "ldp q4, q5, [%[data], #64]\n\t"
      "ldp q6, q7, [%[data], #96]\n\t"
      "add %[data], %[data], #128\n\t"
      "subs %[rounds], %[rounds], #1\n\t"
      "b.ne 1b"
      : [rounds] "+r"(rounds), [data] "+r"(data)
      :
      : LUCID_CLOBBERS);
}

constexpr Loads kLoads[] = {{kNeon, 128, load_q}};

#else

// A compiler without this kind of assembly, or a CPU without vectors that the engine knows.
constexpr Row kRows[] = {{Precision::kInt8, "", ~std::uint64_t{0}, "", 0, nullptr}};
constexpr Loads kLoads[] = {{~std::uint64_t{0}, 1, nullptr}};

#endif

bool runs_here(std::uint64_t features) { return (features & ~cpu_features()) == 0; }

// Numbers without a pattern: processors are faster on zeros. As bfloat16, and as float32 whose
// upper half one is, they are 1 to 2 or -1 to -2, so that no sum becomes infinite or subnormal.
void fill_random(char* data, std::size_t bytes, bool floats) {
  std::uint64_t state = 0x9e3779b97f4a7c15;
  for (std::size_t k = 0; k + 8 <= bytes; k += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::uint64_t value = state;
    if (floats) value = (value & 0x807f807f807f807f) | 0x3f803f803f803f80;
    std::memcpy(data + k, &value, 8);
  }
}

double now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

// Seconds of one call of `work(rounds)` for each round, the least of many; calls are so short that
// some are not interrupted by other programs.
template <typename Work>
double least_seconds(double seconds, Work work) {
  constexpr double kShort = 1e-4;
  constexpr int kLeastCalls = 5;
  const double until = now() + seconds;
  std::int64_t rounds = 1;
  double least = std::numeric_limits<double>::infinity();
  for (int calls = 0; calls < kLeastCalls || now() < until;) {
    const double before = now();
    work(rounds);
    const double took = now() - before;
    if (took < kShort / 2) {
      rounds *= 2;
      continue;
    }
    least = std::min(least, took / static_cast<double>(rounds));
    ++calls;
  }
  return least;
}

}  // namespace

Peak measure_peak(const KernelSet& set, double seconds) {
  for (const Row& row : kRows) {
    if (row.precision != set.precision || std::strcmp(row.isa, set.isa) != 0) continue;
    if (!runs_here(row.features)) break;
    constexpr std::size_t kBytes = 8 * 1024;  // all tiles of AMX
    Buffer data(kBytes);
    fill_random(data.data(), kBytes, row.precision != Precision::kInt8);
    const FloatMode mode;
    const double least =
        least_seconds(seconds, [&](std::int64_t rounds) { row.loop(data.data(), rounds); });
    return {row.instruction, row.multiply_adds / least};
  }
  return {};
}

double measure_bandwidth(std::size_t bytes, double seconds) {
  for (const Loads& loads : kLoads) {
    if (!runs_here(loads.features)) continue;
    const std::size_t rounds = std::max<std::size_t>(bytes / loads.bytes, 1);
    Buffer data(rounds * loads.bytes);
    fill_random(data.data(), data.size(), false);  // else all pages are the same one of zeros
    const double least = least_seconds(seconds, [&](std::int64_t passes) {
      for (; passes > 0; --passes) {
        loads.loop(data.data(), static_cast<std::int64_t>(rounds));
      }
    });
    return static_cast<double>(rounds * loads.bytes) / least;
  }
  return 0;
}

}  // namespace lucid
