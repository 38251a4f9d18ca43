#include "cpu.h"

#include <thread>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define LUCID_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#endif
#endif

namespace lucid {
namespace {

#if defined(LUCID_X86)

struct Registers {
  std::uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers r{};
#if defined(_MSC_VER)
  int values[4];
  __cpuidex(values, static_cast<int>(leaf), static_cast<int>(subleaf));
  r.eax = static_cast<std::uint32_t>(values[0]);
  r.ebx = static_cast<std::uint32_t>(values[1]);
  r.ecx = static_cast<std::uint32_t>(values[2]);
  r.edx = static_cast<std::uint32_t>(values[3]);
#else
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
#endif
  return r;
}

// XCR0: the registers that the operating system saves and restores.
std::uint64_t saved_registers() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  std::uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
#endif
}

// Linux gives the eight kilobytes of tile registers only to processes that ask for them.
bool amx_permitted() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return true;
#endif
}

std::uint64_t detect() {
  const auto bit = [](std::uint32_t value, int position) { return (value >> position & 1) != 0; };
  const std::uint32_t highest = cpuid(0, 0).eax;
  if (highest < 7) return 0;
  const Registers one = cpuid(1, 0);
  if (!bit(one.ecx, 27)) return 0;  // OSXSAVE: without it nothing can be said of the registers
  const std::uint64_t saved = saved_registers();
  constexpr std::uint64_t kYmm = 0x6, kZmm = 0xe6, kTiles = 0x60000;
  const Registers seven = cpuid(7, 0);
  const Registers seven_one = seven.eax >= 1 ? cpuid(7, 1) : Registers{};

  std::uint64_t found = 0;
  const bool fma_f16c = bit(one.ecx, 12) && bit(one.ecx, 29);
  if ((saved & kYmm) != kYmm || !bit(one.ecx, 28) || !fma_f16c || !bit(seven.ebx, 5)) return 0;
  found |= kAvx2;
  if (bit(seven_one.eax, 4)) found |= kAvxVnni;
  const bool has_512 =
      bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) && bit(seven.ebx, 31);
  if ((saved & kZmm) != kZmm || !has_512) return found;
  found |= kAvx512;
  if (bit(seven.ecx, 1)) found |= kAvx512Vbmi;
  if (bit(seven.ecx, 11)) found |= kAvx512Vnni;
  if (bit(seven_one.eax, 5)) found |= kAvx512Bf16;
  if (bit(seven.edx, 23)) found |= kAvx512Fp16;
  const bool has_tiles = bit(seven.edx, 24);
  if ((saved & kTiles) != kTiles || !has_tiles || !amx_permitted()) return found;
  if (bit(seven.edx, 25)) found |= kAmxInt8;
  if (bit(seven.edx, 22)) found |= kAmxBf16;
  return found;
}

#elif defined(__aarch64__) || defined(_M_ARM64)

std::uint64_t detect() {
  std::uint64_t found = kNeon;  // part of the architecture
#if defined(__linux__)
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  if (first >> 20 & 1) found |= kDotprod;
  if (second >> 13 & 1) found |= kI8mm;
  if (second >> 14 & 1) found |= kNeonBf16;
#elif defined(__APPLE__)
  const auto has = [](const char* name) {
    int value = 0;
    std::size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
  };
  if (has("hw.optional.arm.FEAT_DotProd")) found |= kDotprod;
  if (has("hw.optional.arm.FEAT_I8MM")) found |= kI8mm;
  if (has("hw.optional.arm.FEAT_BF16")) found |= kNeonBf16;
#elif defined(_WIN32)
  constexpr DWORD kDotprodAvailable = 43, kI8mmAvailable = 66;
  if (IsProcessorFeaturePresent(kDotprodAvailable)) found |= kDotprod;
  if (IsProcessorFeaturePresent(kI8mmAvailable)) found |= kI8mm;
#endif
  return found;
}

#else

std::uint64_t detect() { return 0; }

#endif

}  // namespace

std::uint64_t cpu_features() {
  static const std::uint64_t features = detect();
  return features;
}

int available_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count > 0 ? static_cast<int>(count) : 1;
}

}  // namespace lucid
