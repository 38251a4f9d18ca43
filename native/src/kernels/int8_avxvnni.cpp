// int8 on AVX-VNNI, 256-bit vpdpbusd without AVX-512. Layout: planes_layout.inc.
//
// vpdpbusd adds four products of a byte and a signed weight to each of 8 sums, exactly.
//
// Register tile of a pointwise layer: 24 pixels x 4 output channels, 12 sums; a step loads 3 vectors
// of pixels and broadcasts 4 weights for 12 vpdpbusd. Depthwise: 4 pixels x 8 channels x 2 rows, 8
// sums; the four products are three rows of the window and one with a weight of 0.
// Bound: two vpdpbusd a cycle, so 64 products.
//
// With LUCID_TEST_EVEX the instruction is encoded as AVX-512 has it, so that a test can execute this
// file on processors that know only that encoding.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../cpu.h"
#include "../kernels.h"

namespace lucid::int8_avxvnni {
namespace {

constexpr int kWindowBytes = 32;
constexpr int kTapBytes = 32;
constexpr int kDenseDepth = 32;

#if defined(LUCID_TEST_EVEX)
constexpr std::uint64_t kFeatures = kAvx2 | kAvx512 | kAvx512Vnni;
#else
constexpr std::uint64_t kFeatures = kAvx2 | kAvxVnni;
#endif

// gcc 12 spills sums that go through the intrinsic; an instruction it can't look into it leaves in
// place.
inline __m256i dot(__m256i sum, __m256i bytes, __m256i weights) {
#if defined(LUCID_TEST_EVEX)
  __asm__("vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(bytes), "x"(weights));
  return sum;
#elif defined(__GNUC__)
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(bytes), "x"(weights));
  return sum;
#else
  return _mm256_dpbusd_avx_epi32(sum, bytes, weights);
#endif
}

#include "planes_layout.inc"

// For each pixel the bytes of its four rows.
inline void interleave(const __m256i (&rows)[4], char* to) {
  const __m256i low[2] = {_mm256_unpacklo_epi8(rows[0], rows[1]),
                          _mm256_unpacklo_epi8(rows[2], rows[3])};
  const __m256i high[2] = {_mm256_unpackhi_epi8(rows[0], rows[1]),
                           _mm256_unpackhi_epi8(rows[2], rows[3])};
  store(to, _mm256_unpacklo_epi16(low[0], low[1]));
  store(to + kWindowBytes, _mm256_unpackhi_epi16(low[0], low[1]));
  store(to + 2 * kWindowBytes, _mm256_unpacklo_epi16(high[0], high[1]));
  store(to + 3 * kWindowBytes, _mm256_unpackhi_epi16(high[0], high[1]));
}

void pack_taps(const std::int8_t (&taps)[kGroup][4], char* to) {
  std::memcpy(to, taps, sizeof taps);
}

template <int R, int S>
inline void add_taps(__m256i (&sum)[R][4], const char* pixels, const char* weights) {
  __m256i weight[R];
  for (int r = 0; r < R; ++r) weight[r] = load(weights + r * kTapBytes);
  for (int k = 0; k < 4; ++k) {
    const __m256i rows = load(pixels + k * S * kWindowBytes);
    for (int r = 0; r < R; ++r) sum[r][k] = dot(sum[r][k], rows, weight[r]);
  }
}

inline void add_dense(__m256i (&sum)[4], const std::uint8_t* in, const char* weights, int row) {
  const __m256i bytes = load(in);
  for (int i = 0; i < 4; ++i) {
    sum[i] = dot(sum[i], bytes, load(weights + static_cast<std::ptrdiff_t>(i) * row));
  }
}

// Weights of a pointwise layer, for each block: this, then for every plane four of each channel.
struct Block {
  std::int32_t bias[kQuad];
  float multiplier[kQuad];
};

std::size_t bytes_of_block(int planes) { return sizeof(Block) + size(planes) * kQuad * kQuad; }

std::size_t pointwise_packed_bytes(const Weights& w) {
  return size(divide_up(w.out_channels, kQuad)) * bytes_of_block(input_planes(w));
}

void pack_pointwise(const Weights& w, char* packed) {
  const int planes = input_planes(w);
  packed += size(w.begin / kQuad) * bytes_of_block(planes);
  for (int index = w.begin / kQuad; index < divide_up(w.end, kQuad); ++index) {
    Block block;
    read_scales(w, index, block.bias, block.multiplier);
    std::memcpy(packed, &block, sizeof block);
    packed += sizeof block;
    for (int plane = 0; plane < planes; ++plane) {
      for (int i = 0; i < kQuad; ++i, packed += kQuad) {
        read_weights(w, index * kQuad + i, plane, reinterpret_cast<std::int8_t*>(packed));
      }
    }
  }
}

inline const char* block_at(const Pointwise& layer, int index) {
  return layer.packed + size(index) * bytes_of_block(layer.planes);
}

template <int V>
inline void add_planes(const Pointwise& layer, const std::uint8_t* in, int index,
                       __m256i (&sum)[kQuad][V]) {
  const char* weights = block_at(layer, index) + sizeof(Block);
  for (int k = 0; k < layer.planes; ++k) {
    __m256i bytes[V];
    for (int v = 0; v < V; ++v) bytes[v] = load(in + v * kVector);
    for (int i = 0; i < kQuad; ++i) {
      const __m256i weight = broadcast_quad(weights + i * kQuad);
      for (int v = 0; v < V; ++v) sum[i][v] = dot(sum[i][v], bytes[v], weight);
    }
    in += layer.in_plane;
    weights += kQuad * kQuad;
  }
}

#include "planes_pointwise.inc"
#include "planes_stem.inc"
#include "planes_window.inc"
#include "planes_set.inc"

}  // namespace
}  // namespace lucid::int8_avxvnni

namespace lucid {

extern const KernelSet kInt8AvxVnni;
const KernelSet kInt8AvxVnni{"avxvnni",
                             Precision::kInt8,
                             int8_avxvnni::kFeatures,
                             int8_avxvnni::tensor_bytes,
                             int8_avxvnni::packed_bytes,
                             int8_avxvnni::pack,
                             int8_avxvnni::scratch_bytes,
                             int8_avxvnni::units,
                             int8_avxvnni::run};

}  // namespace lucid
