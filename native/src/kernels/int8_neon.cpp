// int8 with the NEON of every AArch64 processor. Layout: octets_layout.inc.
//
// With 128 taken from the inputs all factors are signed bytes: two products of -128 .. 127 and
// -127 .. 127 fit int16, of which sadalp adds neighbours to int32.
//
// Register tile of a pointwise layer: 2 pixels x 8 output channels, 16 vectors of 4 partial sums each;
// two octets of inputs take 4 loads of pixels, 16 of weights and 16 times smull, smlal and sadalp.
// Bound: three instructions for 16 products.

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../cpu.h"
#include "../kernels.h"

namespace lucid::int8_neon {
namespace {

constexpr int kPixels = 2;
constexpr bool kCentred = true;

constexpr int place(int output, int input) { return output * 8 + input; }

#include "octets_layout.inc"

inline int8x8_t centred(const std::uint8_t* octet) {
  return vreinterpret_s8_u8(veor_u8(vld1_u8(octet), vdup_n_u8(128)));
}

template <int P>
inline void add_octets(const std::uint8_t* in, std::ptrdiff_t plane, int octets,
                       const std::int8_t* weights, Sums (&sums)[P]) {
  int32x4_t partial[P][kOctet];
  for (int p = 0; p < P; ++p) {
    for (int i = 0; i < kOctet; ++i) partial[p][i] = vdupq_n_s32(0);
  }
  for (int k = 0; k < octets; k += 2, in += 2 * plane, weights += 2 * kOctet * kOctet) {
    const bool two = k + 1 < octets;
    int8x8_t first[P];
    int8x8_t second[P];
    for (int p = 0; p < P; ++p) {
      first[p] = centred(in + p * kOctet);
      second[p] = two ? centred(in + plane + p * kOctet) : vdup_n_s8(0);
    }
    for (int i = 0; i < kOctet; ++i) {
      const int8x8_t weight = vld1_s8(weights + i * kOctet);
      const int8x8_t next = vld1_s8(weights + (two ? kOctet * kOctet : 0) + i * kOctet);
      for (int p = 0; p < P; ++p) {
        const int16x8_t products = vmlal_s8(vmull_s8(first[p], weight), second[p], next);
        partial[p][i] = vpadalq_s16(partial[p][i], products);
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    const auto four = [&](int i) {
      return vpaddq_s32(vpaddq_s32(partial[p][i], partial[p][i + 1]),
                        vpaddq_s32(partial[p][i + 2], partial[p][i + 3]));
    };
    sums[p].low = vaddq_s32(sums[p].low, four(0));
    sums[p].high = vaddq_s32(sums[p].high, four(4));
  }
}

#include "octets_layers.inc"

}  // namespace
}  // namespace lucid::int8_neon

namespace lucid {

extern const KernelSet kInt8Neon;
const KernelSet kInt8Neon = {"neon",
                             Precision::kInt8,
                             kNeon,
                             int8_neon::tensor_bytes,
                             int8_neon::packed_bytes,
                             int8_neon::pack,
                             int8_neon::scratch_bytes,
                             int8_neon::units,
                             int8_neon::run};

}  // namespace lucid
