// int8 with the matrix products of Armv8.6. Layout: octets_layout.inc.
//
// usmmla multiplies 2 pixels x 8 inputs with 8 inputs x 2 output channels: 32 products of bytes and
// signed weights for 4 sums, exactly.
//
// Register tile of a pointwise layer: 8 pixels x 8 output channels, 16 matrices of 2 x 2 sums; an
// octet of inputs takes 4 loads of pixels, 4 of weights and 16 usmmla.
// Bound: usmmla, 32 products each.

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../cpu.h"
#include "../kernels.h"

namespace lucid::int8_i8mm {
namespace {

constexpr int kPixels = 8;
constexpr bool kCentred = false;

constexpr int place(int output, int input) { return output * 8 + input; }

#include "octets_layout.inc"

// The upper or lower rows of two matrices.
inline int32x4_t upper(int32x4_t a, int32x4_t b) {
  return vcombine_s32(vget_low_s32(a), vget_low_s32(b));
}
inline int32x4_t lower(int32x4_t a, int32x4_t b) {
  return vcombine_s32(vget_high_s32(a), vget_high_s32(b));
}

template <int P>
inline void add_octets(const std::uint8_t* in, std::ptrdiff_t plane, int octets,
                       const std::int8_t* weights, Sums (&sums)[P]) {
  constexpr int kPairs = (P + 1) / 2;
  int32x4_t matrix[kPairs][4];
  for (int p = 0; p < kPairs; ++p) {
    for (int i = 0; i < 4; ++i) matrix[p][i] = vdupq_n_s32(0);
  }
  for (int k = 0; k < octets; ++k, in += plane, weights += kOctet * kOctet) {
    uint8x16_t pixels[kPairs];
    for (int p = 0; p < kPairs; ++p) {
      pixels[p] = P == 1 ? vcombine_u8(vld1_u8(in), vdup_n_u8(0)) : vld1q_u8(in + p * 2 * kOctet);
    }
    for (int i = 0; i < 4; ++i) {
      const int8x16_t weight = vld1q_s8(weights + i * 16);
      for (int p = 0; p < kPairs; ++p) {
        matrix[p][i] = vusmmlaq_s32(matrix[p][i], pixels[p], weight);
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    const int32x4_t(&m)[4] = matrix[p / 2];
    const bool even = p % 2 == 0;
    sums[p].low = vaddq_s32(sums[p].low, even ? upper(m[0], m[1]) : lower(m[0], m[1]));
    sums[p].high = vaddq_s32(sums[p].high, even ? upper(m[2], m[3]) : lower(m[2], m[3]));
  }
}

#include "octets_layers.inc"

}  // namespace
}  // namespace lucid::int8_i8mm

namespace lucid {

extern const KernelSet kInt8I8mm;
const KernelSet kInt8I8mm = {"i8mm",
                             Precision::kInt8,
                             kNeon | kDotprod | kI8mm,
                             int8_i8mm::tensor_bytes,
                             int8_i8mm::packed_bytes,
                             int8_i8mm::pack,
                             int8_i8mm::scratch_bytes,
                             int8_i8mm::units,
                             int8_i8mm::run};

}  // namespace lucid
