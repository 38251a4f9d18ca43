// The vector instructions of the file that includes this, and how compilers are told to unroll and
// to inline.

#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 warns about its own header, whose "undefined" registers are so on purpose.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#endif

// Before a loop over registers. Without it gcc keeps arrays of them in memory: a layer of 32 input
// channels took 18% longer.
#if defined(__clang__)
#define LUCID_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define LUCID_UNROLL _Pragma("GCC unroll 16")
#else
#define LUCID_UNROLL
#endif

// Before a function whose arguments are arrays of registers and which is too long for a compiler to
// inline it by itself.
#if defined(__GNUC__)
#define LUCID_INLINE __attribute__((always_inline)) inline
#elif defined(_MSC_VER)
#define LUCID_INLINE __forceinline
#else
#define LUCID_INLINE inline
#endif
