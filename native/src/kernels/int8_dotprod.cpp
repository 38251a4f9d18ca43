// int8 with the dot products of Armv8.2. Layout: octets_layout.inc.
//
// sdot adds four products of signed bytes to each of 4 sums; 128 is taken from the inputs to make
// them signed.
//
// Register tile of a pointwise layer: 8 pixels x 8 output channels, 16 vectors of sums; an octet of
// inputs takes 4 loads of pixels, 4 of weights and 32 sdot with a broadcast quarter of the pixels.
// Bound: sdot, 16 products each.

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../cpu.h"
#include "../kernels.h"

namespace lucid::int8_dotprod {
namespace {

constexpr int kPixels = 8;
constexpr bool kCentred = true;

// Four inputs of each output channel, then the other four.
constexpr int place(int output, int input) { return input / 4 * 32 + output * 4 + input % 4; }

#include "octets_layout.inc"

inline int8x16_t centred(uint8x16_t bytes) {
  return vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128)));
}

// A pixel is half of a vector, kHalf: inputs 0 .. 3, then 4 .. 7.
template <int kHalf>
inline void add_pixel(Sums& sums, int8x16_t pixels, const int8x16_t (&weight)[4]) {
  sums.low = vdotq_laneq_s32(sums.low, weight[0], pixels, 2 * kHalf);
  sums.high = vdotq_laneq_s32(sums.high, weight[1], pixels, 2 * kHalf);
  sums.low = vdotq_laneq_s32(sums.low, weight[2], pixels, 2 * kHalf + 1);
  sums.high = vdotq_laneq_s32(sums.high, weight[3], pixels, 2 * kHalf + 1);
}

template <int P>
inline void add_octets(const std::uint8_t* in, std::ptrdiff_t plane, int octets,
                       const std::int8_t* weights, Sums (&sums)[P]) {
  for (int k = 0; k < octets; ++k, in += plane, weights += kOctet * kOctet) {
    const int8x16_t weight[4] = {vld1q_s8(weights), vld1q_s8(weights + 16), vld1q_s8(weights + 32),
                                 vld1q_s8(weights + 48)};
    if (P == 1) {
      const uint8x8_t pixel = vld1_u8(in);
      add_pixel<0>(sums[0], centred(vcombine_u8(pixel, pixel)), weight);
      continue;
    }
    for (int p = 0; p + 1 < P; p += 2) {
      const int8x16_t pixels = centred(vld1q_u8(in + p * kOctet));
      add_pixel<0>(sums[p], pixels, weight);
      add_pixel<1>(sums[p + 1], pixels, weight);
    }
  }
}

#include "octets_layers.inc"

}  // namespace
}  // namespace lucid::int8_dotprod

namespace lucid {

extern const KernelSet kInt8Dotprod;
const KernelSet kInt8Dotprod = {"dotprod",
                                Precision::kInt8,
                                kNeon | kDotprod,
                                int8_dotprod::tensor_bytes,
                                int8_dotprod::packed_bytes,
                                int8_dotprod::pack,
                                int8_dotprod::scratch_bytes,
                                int8_dotprod::units,
                                int8_dotprod::run};

}  // namespace lucid
