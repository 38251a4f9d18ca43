// int8 on AVX2. Layout: planes_layout.inc.
//
// vpmaddubsw multiplies bytes by signed weights and adds two products, but saturates at int16. It
// is exact for two weights of opposite signs and for those of one sign up to 128 together. Up to
// three of its results may be added as int16 where their weights of one sign are together up to
// 128: weights are packed in chains that are (int8_avx2_chains.inc), and one vpmaddwd widens a whole
// chain. The depthwise layers, whose pairs are beyond much more often, and the classifier widen the
// bytes to int16: vpmaddwd is always exact.
//
// Register tile of a pointwise layer: 24 pixels x 2 output channels, 6 sums of int32 and 6 of int16;
// a plane of inputs takes 3 vectors of pixels and broadcasts 2 weights for 6 times vpmaddubsw and
// vpaddw; a chain of three takes 6 times vpmaddwd and vpaddd besides. Depthwise: 4 pixels x 8
// channels x 2 rows, 8 sums.
// Bound: two multiplying instructions a cycle, four of which make 96 products: 48 products a cycle.
// A chain's 65 instructions come close to it at six a cycle.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../cpu.h"
#include "../kernels.h"

namespace lucid::int8_avx2 {
namespace {

constexpr int kWindowBytes = 64;
constexpr int kTapBytes = 64;
constexpr int kDenseDepth = 16;

// gcc 12 reorders what it understands, multiplies far ahead and loads pixels twice.
inline __m256i add(__m256i sum, __m256i products) {
#if defined(__GNUC__)
  __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
  return sum;
#else
  return _mm256_add_epi32(sum, products);
#endif
}

inline __m256i pairs_of_products(__m256i bytes, __m256i weights) {
#if defined(__GNUC__)
  __m256i pairs;
  __asm__("vpmaddubsw %2, %1, %0" : "=x"(pairs) : "x"(bytes), "x"(weights));
  return pairs;
#else
  return _mm256_maddubs_epi16(bytes, weights);
#endif
}

inline __m256i add_pairs(__m256i sum, __m256i pairs) {
#if defined(__GNUC__)
  __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(pairs));
  return sum;
#else
  return _mm256_add_epi16(sum, pairs);
#endif
}

#include "planes_layout.inc"

// For each pixel the first two rows as pairs of int16, then the last two.
inline void interleave(const __m256i (&rows)[4], char* to) {
  const __m256i zero = _mm256_setzero_si256();
  for (int half = 0; half < 2; ++half) {
    const __m256i low = _mm256_unpacklo_epi8(rows[2 * half], rows[2 * half + 1]);
    const __m256i high = _mm256_unpackhi_epi8(rows[2 * half], rows[2 * half + 1]);
    char* const at = to + half * kVector;
    store(at, _mm256_unpacklo_epi8(low, zero));
    store(at + kWindowBytes, _mm256_unpackhi_epi8(low, zero));
    store(at + 2 * kWindowBytes, _mm256_unpacklo_epi8(high, zero));
    store(at + 3 * kWindowBytes, _mm256_unpackhi_epi8(high, zero));
  }
}

void pack_taps(const std::int8_t (&taps)[kGroup][4], char* to) {
  for (int half = 0; half < 2; ++half) {
    for (int c = 0; c < kGroup; ++c) {
      for (int k = 0; k < 2; ++k, to += sizeof(std::int16_t)) {
        const std::int16_t weight = taps[c][2 * half + k];
        std::memcpy(to, &weight, sizeof weight);
      }
    }
  }
}

template <int R, int S>
inline void add_taps(__m256i (&sum)[R][4], const char* pixels, const char* weights) {
  for (int half = 0; half < 2; ++half) {
    __m256i weight[R];
    for (int r = 0; r < R; ++r) weight[r] = load(weights + r * kTapBytes + half * kVector);
    for (int k = 0; k < 4; ++k) {
      const __m256i rows = load(pixels + k * S * kWindowBytes + half * kVector);
      for (int r = 0; r < R; ++r) {
        sum[r][k] = add(sum[r][k], _mm256_madd_epi16(rows, weight[r]));
      }
    }
  }
}

inline void add_dense(__m256i (&sum)[4], const std::uint8_t* in, const char* weights, int row) {
  const auto half = [](const void* at) {
    return _mm_loadu_si128(static_cast<const __m128i*>(at));
  };
  const __m256i values = _mm256_cvtepu8_epi16(half(in));
  for (int i = 0; i < 4; ++i) {
    const __m256i weight =
        _mm256_cvtepi8_epi16(half(weights + static_cast<std::ptrdiff_t>(i) * row));
    sum[i] = add(sum[i], _mm256_madd_epi16(values, weight));
  }
}

#include "int8_avx2_chains.inc"
#include "planes_pointwise.inc"
#include "planes_stem.inc"
#include "planes_window.inc"
#include "planes_set.inc"

}  // namespace
}  // namespace lucid::int8_avx2

namespace lucid {

extern const KernelSet kInt8Avx2;
const KernelSet kInt8Avx2{"avx2",
                          Precision::kInt8,
                          kAvx2,
                          int8_avx2::tensor_bytes,
                          int8_avx2::packed_bytes,
                          int8_avx2::pack,
                          int8_avx2::scratch_bytes,
                          int8_avx2::units,
                          int8_avx2::run};

}  // namespace lucid
