// How the CPU rounds and treats subnormal numbers while kernels run.

#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#elif defined(_M_ARM64)
#include <intrin.h>
#endif

namespace lucid {

// While it lives, this thread rounds to nearest, raises no floating-point exception, and takes
// subnormal numbers, which cost up to a hundred times more, as zero. Then all is as before.
class FloatMode {
 public:
  FloatMode() : before_(read()) { write(kMode); }
  ~FloatMode() { write(before_); }
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
#if defined(__x86_64__) || defined(_M_X64)
  using Mode = unsigned;
  static constexpr Mode kMode = 0x9fc0;  // MXCSR: all masked, to nearest, flush, denormals are zero
  static Mode read() { return _mm_getcsr(); }
  static void write(Mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
  using Mode = std::uint64_t;
  static constexpr Mode kMode = 1u << 24;  // FPCR: none trapped, to nearest, flush
  static Mode read() {
    Mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void write(Mode mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#elif defined(_M_ARM64)
  using Mode = std::int64_t;
  static constexpr Mode kMode = 1 << 24;
  static constexpr int kFpcr = ARM64_SYSREG(3, 3, 4, 4, 0);
  static Mode read() { return _ReadStatusReg(kFpcr); }
  static void write(Mode mode) { _WriteStatusReg(kFpcr, mode); }
#else
  using Mode = int;
  static constexpr Mode kMode = 0;
  static Mode read() { return 0; }
  static void write(Mode) {}
#endif

  Mode before_;
};

}  // namespace lucid
