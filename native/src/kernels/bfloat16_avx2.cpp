// bfloat16 on AVX2: activations and pointwise weights of 16 bits, arithmetic in float32. Layout:
// blocked_layout.inc, in blocks of 32 channels, whose pixels are cache lines. Saves memory, not
// time: two shifts or masks come with every four multiply-adds.
//
// Register tile of a pointwise layer: 4 pixels x 16 output channels, 8 sums; for two input channels
// a step loads weights and broadcasts values twice, for 16 multiply-adds. Depthwise: 4 pixels x 8
// channels. Stem: 12 pixels x 8 channels.
// Bound: multiply-adds, 8 float32 each, two a cycle.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "../cpu.h"
#include "../kernels.h"
#include "intrinsics.h"

namespace lucid {
namespace bfloat16_avx2 {
namespace {

#include "bfloat16.inc"
#include "vector_avx2.inc"

using Element = std::uint16_t;
using Product = std::uint16_t;
constexpr int kBlock = 32;
constexpr int kHalf = kBlock / 2;
constexpr int kDepth = 2;
constexpr int kPair = 2;
constexpr std::size_t kSlack = 0;
constexpr std::size_t kProductBytes = sizeof(Product);
constexpr int kPixels = 4;
constexpr int kVectors = 2;
constexpr int kColumns = 4;
constexpr int kStemPixels = 12;
constexpr int kDenseVectors = 8;

inline Product to_product(float value) { return to_bfloat16(value); }

struct Vector : Floats8 {
  using Floats8::load;
  using Floats8::store;
  static Type load(const Element* at) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
  // Rounded as in to_bfloat16.
  static void store(Element* at, Type a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i halves = _mm256_srli_epi32(up, 16);
    const __m128i all =
        _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at), all);
  }

  // Two input channels of P pixels, kPixel values apart, times N vectors of weights: the first of
  // each pair, then the second, which needs half the registers.
  template <int P, int N, int kPixel>
  static void multiply(Type (&sum)[P][N], const Element* in, const Product* weights) {
    multiply_half<P, N, kPixel>(sum, in, weights,
                                [](__m256i pairs) { return _mm256_slli_epi32(pairs, 16); });
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
    multiply_half<P, N, kPixel>(sum, in, weights,
                                [upper](__m256i pairs) { return _mm256_and_si256(pairs, upper); });
  }
  template <int P, int N, int kPixel, typename Select>
  static void multiply_half(Type (&sum)[P][N], const Element* in, const Product* weights,
                            Select select) {
    Type weight[N];
    LUCID_UNROLL
    for (int n = 0; n < N; ++n) {
      const auto* at = reinterpret_cast<const __m256i*>(weights + n * kLanes * kPair);
      weight[n] = _mm256_castsi256_ps(select(_mm256_loadu_si256(at)));
    }
    LUCID_UNROLL
    for (int p = 0; p < P; ++p) {
      int pair;
      std::memcpy(&pair, in + p * kPixel, sizeof(pair));
      const Type value = _mm256_castsi256_ps(select(_mm256_set1_epi32(pair)));
      LUCID_UNROLL
      for (int n = 0; n < N; ++n) sum[p][n] = multiply_add(value, weight[n], sum[p][n]);
    }
  }
};
using Narrow = Vector;

#include "blocked_layout.inc"
#include "blocked_matrix.inc"
#include "blocked_pointwise.inc"
#include "blocked_window.inc"
#include "blocked_stem.inc"
#include "blocked_set.inc"

}  // namespace
}  // namespace bfloat16_avx2

extern const KernelSet kBfloat16Avx2;
const KernelSet kBfloat16Avx2 = bfloat16_avx2::kernel_set("avx2", Precision::kBfloat16, kAvx2);

}  // namespace lucid
