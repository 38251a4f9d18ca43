// int8 on AVX-512 VNNI, whose vpdpbusd adds four products of a byte and a signed byte to each of 16
// sums. Two layouts of activations take turns, so that no layer moves bytes but in its epilogue:
//
//   by pixels     [y][channel/16][x/4][16 channels][4 pixels]   stem, pointwise -> depthwise, pool
//   by channels   [y][channel/16][x][16 channels]               depthwise -> pointwise
//
// A depthwise layer sums along x: of four neighbouring pixels of a channel it takes three by a
// weight of zero. A pointwise layer sums along channels, four a step. Rows are padded to whole
// vectors; pixels beyond the row are zeros by pixels, anything by channels. A tensor of at most 8
// channels has blocks of 8 instead of 16, so that a vector holds 8 pixels. No border is stored.
//
// Register tiles: pointwise, up to 14 pixels x 32 channels in 28 accumulators, each step 2 loads of
// weights and 14 broadcasts for 28 vpdpbusd; stem, 8 pixels x 32 channels, broadcast from the
// image's rows; depthwise, 4 pixels x 16 channels, 12 vpdpbusd for 9 of 12 useful products.
// Bound: vpdpbusd, one (Zen 4) or two (Intel's servers) 512-bit instructions a cycle. Where few
// input channels meet many outputs the two conversions of the epilogue are as dear.

#include "int8_avx512vnni.h"

#include <immintrin.h>

#include <cstring>

#include "../cpu.h"

namespace lucid::int8_avx512vnni {
namespace {

constexpr int kLanes = 16;       // 32-bit sums in a vector
constexpr int kVector = 64;      // bytes
constexpr int kMaxPixels = 14;   // of a pointwise tile
constexpr int kWideBand = 8;     // rows of a wide image that a depthwise layer takes at once
constexpr int kDensePanels = 8;  // panels of 16 outputs that the classifier computes at once

int divide_up(int n, int by) { return (n + by - 1) / by; }
int round_up(int n, int to) { return divide_up(n, to) * to; }

// Channels that stand together in a vector.
int block_of(int channels) { return channels <= 8 ? 8 : kLanes; }

// Pixels of a row in memory.
int padded_width(int channels, int width) { return round_up(width, kVector / block_of(channels)); }

// Bytes of a row of one block of channels.
std::size_t plane_bytes(const Tensor& t) {
  return static_cast<std::size_t>(padded_width(t.channels, t.width)) *
         static_cast<std::size_t>(block_of(t.channels));
}

// gcc 12 spills accumulators that go through the intrinsic; an instruction it can't look into it
// leaves in place.
inline __m512i dot(__m512i sum, __m512i bytes, __m512i weights) {
#if defined(__GNUC__)
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(weights));
  return sum;
#else
  return _mm512_dpbusd_epi32(sum, bytes, weights);
#endif
}

inline __m256i dot(__m256i sum, __m256i bytes, __m256i weights) {
#if defined(__GNUC__)
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(weights));
  return sum;
#else
  return _mm256_dpbusd_epi32(sum, bytes, weights);
#endif
}

inline std::int32_t quad(const std::uint8_t* at) {
  std::int32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline __m512i load(const void* from) { return _mm512_loadu_si512(from); }
inline void store(void* to, __m512i value) { _mm512_storeu_si512(to, value); }

// Vectors of 16 and of 8 sums.
struct Whole {
  using Sums = __m512i;
  using Floats = __m512;
  static constexpr int kCount = 16;
  static Sums sums(const void* from) { return _mm512_loadu_si512(from); }
  static Floats floats(const float* from) { return _mm512_loadu_ps(from); }
  static Sums all(std::int32_t value) { return _mm512_set1_epi32(value); }
};

struct Half {
  using Sums = __m256i;
  using Floats = __m256;
  static constexpr int kCount = 8;
  static Sums sums(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  static Floats floats(const float* from) { return _mm256_loadu_ps(from); }
  static Sums all(std::int32_t value) { return _mm256_set1_epi32(value); }
};

inline void store(void* to, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), value);
}

inline __m512i requantise(__m512i sum, __m512 multiplier) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), multiplier));
}

inline __m256i requantise(__m256i sum, __m256 multiplier) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), multiplier));
}

// Four pixels of 16 channels -> bytes, clamped. Each 128-bit lane has four channels of the first
// pixel, of the second, the third and the fourth.
inline __m512i to_bytes(__m512i a, __m512i b, __m512i c, __m512i d, __m512i maximum) {
  const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
  return _mm512_min_epu8(bytes, maximum);
}

inline __m256i to_bytes(__m256i a, __m256i b, __m256i c, __m256i d, __m256i maximum) {
  const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  return _mm256_min_epu8(bytes, maximum);
}

// Within each 128-bit lane, a 4 x 4 transpose of bytes: four pixels of each channel together.
inline __m512i by_pixels(__m512i bytes) {
  const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(order));
}

inline __m256i by_pixels(__m256i bytes) {
  const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order));
}

// ---- Weights ----
//
// A panel is the weights of 16 outputs (8 in a stem of at most 8): [quad of inputs][output][4].
// In memory: the biases of all outputs, then the multipliers, then the panels. Depthwise, a block of
// 16 channels is a panel of three quads, one for each row of the window: (w0, w1, w2, 0).

int lanes_of(Kind kind, int outputs) { return kind == Kind::kStem ? block_of(outputs) : kLanes; }

int quads_of(Kind kind, int in_channels) {
  if (kind == Kind::kDepthwise) return 3;
  if (kind == Kind::kStem) return 3 * divide_up(3 * in_channels, 4);
  return divide_up(in_channels, 4);
}

struct Packed {
  const std::int32_t* bias;
  const float* multiplier;
  const std::int8_t* weights;
  int quads;
  std::size_t panel;  // bytes

  Packed(const void* packed, Kind kind, int in_channels, int outputs) {
    // Two blocks of 8 depthwise channels fill a vector: both halves hold the same.
    const int lanes = lanes_of(kind, outputs);
    const int padded = round_up(outputs, lanes);
    bias = static_cast<const std::int32_t*>(packed);
    multiplier = reinterpret_cast<const float*>(bias + padded);
    weights = reinterpret_cast<const std::int8_t*>(multiplier + padded);
    quads = quads_of(kind, in_channels);
    panel = static_cast<std::size_t>(quads) * static_cast<std::size_t>(lanes) * 4;
  }
};

// The weight of an output for byte `at` of its quads, 0 where there is none.
std::int8_t weight_at(const Weights& w, int output, int at) {
  const auto o = static_cast<std::size_t>(output);
  const auto inputs = static_cast<std::size_t>(w.in_channels);
  if (w.kind == Kind::kDepthwise) {
    const int row = at / 4, column = at % 4;
    return column < 3 ? w.weight_i8[o * 9 + static_cast<std::size_t>(row * 3 + column)]
                      : std::int8_t{0};
  }
  if (w.kind == Kind::kStem) {
    // A row of the window is 3 pixels of the image, channels last, in whole quads.
    const int row_quads = divide_up(3 * w.in_channels, 4);
    const int row = at / (row_quads * 4), byte = at % (row_quads * 4);
    if (byte >= 3 * w.in_channels) return 0;
    const auto column = static_cast<std::size_t>(byte / w.in_channels);
    const auto channel = static_cast<std::size_t>(byte % w.in_channels);
    return w.weight_i8[((o * inputs + channel) * 3 + static_cast<std::size_t>(row)) * 3 + column];
  }
  return at < w.in_channels ? w.weight_i8[o * inputs + static_cast<std::size_t>(at)]
                            : std::int8_t{0};
}

// ---- Stem ----

// Rows of the image in scratch memory, with what is outside: three slots, row y in slot y mod 3.
struct StemRows {
  std::uint8_t* slots;
  std::size_t slot;   // bytes
  std::size_t image;  // bytes of a row of the image
  std::size_t left;   // bytes before it
  const std::uint8_t* outside;
  std::size_t channels;

  std::uint8_t* row(int y) const { return slots + static_cast<std::size_t>((y + 3) % 3) * slot; }

  void fill_outside(std::uint8_t* from, std::size_t bytes) const {
    std::size_t done = bytes < channels ? bytes : channels;
    std::memcpy(from, outside, done);
    while (done < bytes) {  // each time twice as much
      const std::size_t more = bytes - done < done ? bytes - done : done;
      std::memcpy(from + done, from, more);
      done += more;
    }
  }
};

std::size_t stem_slot_bytes(const Step& s) {
  const int pixels = (round_up(s.out.width, 8) - 1) * s.stride + 3;
  const int most = pixels > s.pad_left + s.in.width ? pixels : s.pad_left + s.in.width;
  // A quad may reach 3 bytes beyond the last pixel.
  return static_cast<std::size_t>(round_up(most * s.in.channels + 3, kVector));
}

// Pixels of a tile: 8 accumulators hide the latency of the sums, 8 more are the last tile's.
template <class V, int kPanels>
constexpr int kStemPixels = V::kCount == 16 ? 4 : 8;

// Panels of a row. Each tile is summed while the last one is finished (see sum_and_store). kStep is
// the bytes from a pixel to the next for 3 channels, or 0: any number.
template <class V, int kPanels, int kStep>
void stem_row(const Step& s, const Packed& p, int first_panel, const std::uint8_t* const rows[3],
              std::uint8_t* out) {
  constexpr int kPixels = kStemPixels<V, kPanels>;
  constexpr int kGroups = kPixels / 4;
  constexpr int kBytes = V::kCount * 4;  // of a vector of weights, and of four pixels
  const int step = kStep ? kStep : s.stride * s.in.channels;
  const int quads = kStep ? 3 : p.quads / 3;
  const auto maximum = V::all(s.maximum * 0x01010101);
  const std::size_t plane = plane_bytes(s.out);
  const std::int8_t* const panel = p.weights + static_cast<std::size_t>(first_panel) * p.panel;
  typename V::Sums bias[kPanels], last[kPixels][kPanels];
  typename V::Floats multiplier[kPanels];
  for (int n = 0; n < kPanels; ++n) {
    bias[n] = V::sums(p.bias + (first_panel + n) * V::kCount);
    multiplier[n] = V::floats(p.multiplier + (first_panel + n) * V::kCount);
    for (int m = 0; m < kPixels; ++m) last[m][n] = bias[n];
  }
  out += static_cast<std::size_t>(first_panel) * plane;
  std::uint8_t* to = out;  // the first tile's place is written twice
  const auto finish = [&](int part) {
    const int n = part / kGroups, group = part % kGroups;
    typename V::Sums q[4];
    for (int m = 0; m < 4; ++m) q[m] = requantise(last[group * 4 + m][n], multiplier[n]);
    store(to + static_cast<std::size_t>(n) * plane + group * kBytes,
          by_pixels(to_bytes(q[0], q[1], q[2], q[3], maximum)));
  };
  for (int x = 0; x < s.out.width; x += kPixels) {
    typename V::Sums sums[kPixels][kPanels];
    for (int m = 0; m < kPixels; ++m)
      for (int n = 0; n < kPanels; ++n) sums[m][n] = bias[n];
    const std::int8_t* weights = panel;
    for (int row = 0; row < 3; ++row) {
      const std::uint8_t* in = rows[row] + x * step;
      for (int at = 0; at < quads; ++at, in += 4, weights += kBytes) {
        typename V::Sums w[kPanels];
        for (int n = 0; n < kPanels; ++n) {
          w[n] = V::sums(weights + static_cast<std::size_t>(n) * p.panel);
        }
        for (int m = 0; m < kPixels; ++m) {
          const auto pixel = V::all(quad(in + m * step));
          for (int n = 0; n < kPanels; ++n) sums[m][n] = dot(sums[m][n], pixel, w[n]);
        }
      }
      if (row < kGroups * kPanels) finish(row);
    }
    for (int m = 0; m < kPixels; ++m)
      for (int n = 0; n < kPanels; ++n) last[m][n] = sums[m][n];
    to = out + x * V::kCount;
  }
  for (int part = 0; part < kGroups * kPanels; ++part) finish(part);
}

template <int kStep>
void stem_row_any(const Step& s, const Packed& p, const std::uint8_t* const rows[3],
                  std::uint8_t* out) {
  if (block_of(s.out.channels) == 8) {
    stem_row<Half, 1, kStep>(s, p, 0, rows, out);
  } else {
    const int panels = divide_up(s.out.channels, kLanes);
    int n = 0;
    for (; n + 2 <= panels; n += 2) stem_row<Whole, 2, kStep>(s, p, n, rows, out);
    if (n < panels) stem_row<Whole, 1, kStep>(s, p, n, rows, out);
  }
}

// Makes pixels beyond the row zeros.
void clear_beyond(const Tensor& t, std::uint8_t* row) {
  const int block = block_of(t.channels);
  const int padded = padded_width(t.channels, t.width);
  for (int plane = 0; plane < divide_up(t.channels, block); ++plane, row += padded * block)
    for (int x = t.width; x < padded; ++x)
      for (int c = 0; c < block; ++c) row[(x / 4 * block + c) * 4 + x % 4] = 0;
}

// ---- Depthwise ----

// Bytes 0 to 2 of each four, and the last of the four before; bytes 1 to 3, and the first of the
// four behind.
inline __m512i with_before(__m512i four, __m512i before) {
  return _mm512_mask_blend_epi8(0x8888888888888888ULL, four, before);
}
inline __m512i with_behind(__m512i four, __m512i behind) {
  return _mm512_mask_blend_epi8(0x1111111111111111ULL, four, behind);
}

// A row's weights where they start at byte 0, 1, 2 or 3 of the four pixels, in a circle.
struct Turned {
  __m512i by[4];
};

inline Turned turn(__m512i weights) {
  return {{weights, _mm512_rol_epi32(weights, 8), _mm512_rol_epi32(weights, 16),
           _mm512_rol_epi32(weights, 24)}};
}

// What rows of a block of channels need.
struct DepthwiseRows {
  Turned weights[3];
  __m512i bias;
  __m512 multiplier;
  __m512i maximum;
  int vectors_in;  // of 64 bytes in a row
  int vectors_out;
  const std::uint8_t* in;
  std::size_t in_row;  // bytes from a row to the next
  std::uint8_t* out;
  std::size_t out_row;
  const std::uint8_t* zeros;  // a row of the input that is outside
};

// A row of zeros, and a vector before and behind it.
std::size_t depthwise_scratch_bytes(const Step& s) { return plane_bytes(s.in) + 2 * kVector; }

using Window = const std::uint8_t* const[3];  // a place in the three rows that a window sees

// Four sums a channel, one for each pixel.
struct Sums {
  __m512i of[4];
};

// A place in a row, a vector of pixels. At the first nothing is before it, at the last not behind.
enum Place { kMiddle = 0, kFirst = 1, kLast = 2, kOnly = kFirst | kLast };

// The four pixels of each channel before those at `in` and behind them. With 8 channels a vector
// holds two fours.
template <int kBlock, int kPlace>
inline __m512i four_before(const std::uint8_t* in) {
  if (kPlace & kFirst) {
    return kBlock == 8 ? _mm512_maskz_loadu_epi32(0xff00, in - 32) : _mm512_setzero_si512();
  }
  return load(in - (kBlock == 8 ? 32 : kVector));
}
template <int kBlock, int kPlace>
inline __m512i four_behind(const std::uint8_t* in) {
  if (kPlace & kLast) {
    return kBlock == 8 ? _mm512_maskz_loadu_epi32(0x00ff, in + 32) : _mm512_setzero_si512();
  }
  return load(in + (kBlock == 8 ? 32 : kVector));
}

// Stride 1, a row of the window: what it adds around each of the four pixels.
template <int kBlock>
struct Dense {
  template <int kPlace>
  static inline void add(const DepthwiseRows& d, const Window& rows, int r, int v, Sums& sums) {
    const std::uint8_t* in = rows[r] + static_cast<std::size_t>(v) * kVector;
    const Turned& w = d.weights[r];
    const __m512i four = load(in);
    sums.of[0] = dot(sums.of[0], with_before(four, four_before<kBlock, kPlace>(in)), w.by[3]);
    sums.of[1] = dot(sums.of[1], four, w.by[0]);
    sums.of[2] = dot(sums.of[2], four, w.by[1]);
    sums.of[3] = dot(sums.of[3], with_behind(four, four_behind<kBlock, kPlace>(in)), w.by[2]);
  }
};

// Of two vectors of two fours each: the first fours of both, the second fours of both.
inline __m512i first_fours(__m512i a, __m512i b) { return _mm512_shuffle_i64x2(a, b, 0x44); }
inline __m512i second_fours(__m512i a, __m512i b) { return _mm512_shuffle_i64x2(a, b, 0xee); }

// Stride 2: eight pixels of each channel as two fours, a and b. Their windows begin at -1, 1, 3 and
// 5 if the padding has a pixel on the left, else at 0, 2, 4 and 6.
template <int kBlock, bool kPadded>
struct Apart {
  template <int kPlace>
  static inline void add(const DepthwiseRows& d, const Window& rows, int r, int v, Sums& sums) {
    const std::uint8_t* in = rows[r] + static_cast<std::size_t>(v) * (2 * kVector);
    const auto vector = [&](int at) {
      if (((kPlace & kFirst) && at < 0) || ((kPlace & kLast) && at > 0 && 2 * v + at >= d.vectors_in))
        return _mm512_setzero_si512();
      return load(in + at * kVector);
    };
    const __m512i one = vector(0), two = vector(1);
    const __m512i a = kBlock == 8 ? first_fours(one, two) : one;
    const __m512i b = kBlock == 8 ? second_fours(one, two) : two;
    const Turned& w = d.weights[r];
    if (kPadded) {
      const __m512i before = kBlock == 8 ? second_fours(vector(-1), one) : vector(-1);
      sums.of[0] = dot(sums.of[0], with_before(a, before), w.by[3]);
      sums.of[1] = dot(sums.of[1], a, w.by[1]);
      sums.of[2] = dot(sums.of[2], with_before(b, a), w.by[3]);
      sums.of[3] = dot(sums.of[3], b, w.by[1]);
    } else {
      const __m512i behind = kBlock == 8 ? first_fours(two, vector(2)) : vector(2);
      sums.of[0] = dot(sums.of[0], a, w.by[0]);
      sums.of[1] = dot(sums.of[1], with_behind(a, b), w.by[2]);
      sums.of[2] = dot(sums.of[2], b, w.by[0]);
      sums.of[3] = dot(sums.of[3], with_behind(b, behind), w.by[2]);
    }
  }
};

// kBlock: 8 channels a pixel, or 16, or 64 of which these are 16.
template <int kBlock>
inline void store_pixels(__m512i bytes, std::uint8_t* out) {
  // Of each 128-bit lane, 4 channels, a part goes to each pixel.
  const __m512i order =
      kBlock == 8 ? _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15)
                  : _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i pixels = _mm512_permutexvar_epi32(order, bytes);
  if (kBlock < 64) {
    store(out, pixels);
  } else {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_castsi512_si128(pixels));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 64), _mm512_extracti32x4_epi32(pixels, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 128), _mm512_extracti32x4_epi32(pixels, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 192), _mm512_extracti32x4_epi32(pixels, 3));
  }
}

// Bytes from a vector of pixels to the next.
template <int kBlock>
constexpr std::size_t kVectorOut = kBlock < 64 ? kVector : 4 * 64;

template <int kBlock>
inline void store_sums(const DepthwiseRows& d, const Sums& sums, std::uint8_t* out) {
  __m512i q[4];
  for (int m = 0; m < 4; ++m) q[m] = requantise(sums.of[m], d.multiplier);
  store_pixels<kBlock>(to_bytes(q[0], q[1], q[2], q[3], d.maximum), out);
}

// Sums new pixels and finishes the last ones in between: a CPU looks some 60 instructions ahead,
// and the two take different units.
template <class Stride, int kBlock, int kPlace>
inline Sums sum_and_store(const DepthwiseRows& d, const Window& rows, int v, const Sums& last,
                          std::uint8_t* out) {
  Sums sums = {{d.bias, d.bias, d.bias, d.bias}};
  Stride::template add<kPlace>(d, rows, 0, v, sums);
  const __m512i a = requantise(last.of[0], d.multiplier), b = requantise(last.of[1], d.multiplier);
  Stride::template add<kPlace>(d, rows, 1, v, sums);
  const __m512i c = requantise(last.of[2], d.multiplier), e = requantise(last.of[3], d.multiplier);
  Stride::template add<kPlace>(d, rows, 2, v, sums);
  store_pixels<kBlock>(to_bytes(a, b, c, e, d.maximum), out);
  return sums;
}

template <class Stride, int kBlock>
void depthwise_rows(const Step& s, const DepthwiseRows& rows, int begin, int end) {
  const DepthwiseRows d = rows;
  const int last = d.vectors_out - 1;
  Sums sums = {{d.bias, d.bias, d.bias, d.bias}};
  // The first store has no sums yet; what it writes is overwritten by the next.
  std::uint8_t* out = d.out + static_cast<std::size_t>(begin) * d.out_row;
  for (int y = begin; y < end; ++y) {
    const std::uint8_t* window[3];
    for (int r = 0; r < 3; ++r) {
      const int row = y * s.stride - s.pad_top + r;
      const bool inside = row >= 0 && row < s.in.height;
      window[r] = inside ? d.in + static_cast<std::size_t>(row) * d.in_row : d.zeros;
    }
    std::uint8_t* to = d.out + static_cast<std::size_t>(y) * d.out_row;
    if (last == 0) {
      sums = sum_and_store<Stride, kBlock, kOnly>(d, window, 0, sums, out);
      out = to;
      continue;
    }
    sums = sum_and_store<Stride, kBlock, kFirst>(d, window, 0, sums, out);
    out = to;
    for (int v = 1; v < last; ++v, out += kVectorOut<kBlock>) {
      sums = sum_and_store<Stride, kBlock, kMiddle>(d, window, v, sums, out);
    }
    sums = sum_and_store<Stride, kBlock, kLast>(d, window, last, sums, out);
    out += kVectorOut<kBlock>;
  }
  store_sums<kBlock>(d, sums, out);
}

template <int kBlock>
void depthwise_rows_any(const Step& s, const DepthwiseRows& d, int begin, int end) {
  if (s.stride == 1) return depthwise_rows<Dense<kBlock>, kBlock>(s, d, begin, end);
  if (s.pad_left == 1) return depthwise_rows<Apart<kBlock, true>, kBlock>(s, d, begin, end);
  return depthwise_rows<Apart<kBlock, false>, kBlock>(s, d, begin, end);
}

// ---- Pointwise ----

struct PointwiseTile {
  const std::uint8_t* in;
  std::size_t in_plane;  // bytes from a block of channels to the next
  const std::int8_t* weights;
  std::size_t panel;
  const std::int32_t* bias;
  const float* multiplier;
  std::uint8_t* out;
  std::size_t out_plane;
  int quads;
  int maximum;
  bool half;  // at most 8 channels out
};

template <int kPixels, int kPanels, int kBlock>
inline void pointwise_quad(__m512i sums[kPixels][kPanels], const std::uint8_t* in,
                           const std::int8_t* weights, std::size_t panel) {
  __m512i w[kPanels];
#pragma GCC unroll 4
  for (int n = 0; n < kPanels; ++n) w[n] = load(weights + static_cast<std::size_t>(n) * panel);
#pragma GCC unroll 14
  for (int m = 0; m < kPixels; ++m) {
    const __m512i pixel = Whole::all(quad(in + m * kBlock));
#pragma GCC unroll 4
    for (int n = 0; n < kPanels; ++n) sums[m][n] = dot(sums[m][n], pixel, w[n]);
  }
}

template <int kPixels, int kPanels, int kBlock>
void pointwise_tile(const PointwiseTile& t) {
  __m512i sums[kPixels][kPanels];
#pragma GCC unroll 4
  for (int n = 0; n < kPanels; ++n) {
    const __m512i bias = load(t.bias + n * kLanes);
#pragma GCC unroll 14
    for (int m = 0; m < kPixels; ++m) sums[m][n] = bias;
  }
  const std::uint8_t* in = t.in;
  const std::int8_t* weights = t.weights;
  const std::size_t panel = t.panel;
  for (int block = t.quads / (kBlock / 4); block > 0; --block) {
#pragma GCC unroll 4
    for (int at = 0; at < kBlock / 4; ++at) {
      pointwise_quad<kPixels, kPanels, kBlock>(sums, in + at * 4, weights, panel);
      weights += kVector;
    }
    in += t.in_plane;
  }
  for (int at = 0; at < t.quads % (kBlock / 4); ++at, weights += kVector)
    pointwise_quad<kPixels, kPanels, kBlock>(sums, in + at * 4, weights, panel);

  const __m512i maximum = _mm512_set1_epi8(static_cast<char>(t.maximum));
#pragma GCC unroll 4
  for (int n = 0; n < kPanels; ++n) {
    const __m512 multiplier = _mm512_loadu_ps(t.multiplier + n * kLanes);
    std::uint8_t* out = t.out + static_cast<std::size_t>(n) * t.out_plane;
#pragma GCC unroll 4
    for (int first = 0; first < kPixels; first += 4) {
      __m512i q[4];
#pragma GCC unroll 4
      for (int m = 0; m < 4; ++m) {
        q[m] = first + m < kPixels ? requantise(sums[(first + m) % kPixels][n], multiplier)
                                   : _mm512_setzero_si512();
      }
      const __m512i bytes = by_pixels(to_bytes(q[0], q[1], q[2], q[3], maximum));
      if (t.half) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + first * 8),
                            _mm512_castsi512_si256(bytes));
      } else {
        store(out + first * kLanes, bytes);
      }
    }
  }
}

using TileFunction = void (*)(const PointwiseTile&);

#define LUCID_TILES(panels, block)                                                                 \
  {pointwise_tile<1, panels, block>, pointwise_tile<2, panels, block>,                             \
   pointwise_tile<3, panels, block>, pointwise_tile<4, panels, block>,                             \
   pointwise_tile<5, panels, block>, pointwise_tile<6, panels, block>,                             \
   pointwise_tile<7, panels, block>, pointwise_tile<8, panels, block>,                             \
   pointwise_tile<9, panels, block>, pointwise_tile<10, panels, block>,                            \
   pointwise_tile<11, panels, block>, pointwise_tile<12, panels, block>,                           \
   pointwise_tile<13, panels, block>, pointwise_tile<14, panels, block>}

// By the block of input channels (16, 8), the panels (1, 2) and the pixels (1 to 14).
constexpr TileFunction kTiles[2][2][kMaxPixels] = {{LUCID_TILES(1, 16), LUCID_TILES(2, 16)},
                                                   {LUCID_TILES(1, 8), LUCID_TILES(2, 8)}};

#undef LUCID_TILES

// Pixels of the next tile, with `left` to go: at most 14, in fours but for the last, even.
int next_pixels(int left) {
  if (left <= kMaxPixels) return left;
  const int even = round_up(divide_up(left, divide_up(left, kMaxPixels)), 4);
  return even < 12 ? even : 12;
}

constexpr int kPanels = 2;  // of a pointwise tile

bool weights_fit_cache(const Step& s) {
  return round_up(s.in.channels, 4) * round_up(s.out.channels, kLanes) <= 16 * 1024;
}

void pointwise(const Step& s, const void* packed, const void* in, void* out, int begin, int end) {
  const Packed p(packed, s.kind, s.in.channels, s.out.channels);
  const int panels = divide_up(s.out.channels, kLanes);
  const int columns = divide_up(panels, kPanels);
  const int block = block_of(s.in.channels);
  const int out_block = block_of(s.out.channels);
  PointwiseTile t;
  t.in_plane = plane_bytes(s.in);
  t.panel = p.panel;
  t.out_plane = plane_bytes(s.out);
  t.quads = p.quads;
  t.maximum = s.maximum;
  t.half = out_block == 8;
  for (int unit = begin; unit < end; ++unit) {
    // Either the weights of all columns stay in the cache, or those of one column for all rows.
    const bool by_rows = weights_fit_cache(s);
    const int y = by_rows ? unit / columns : unit % s.out.height;
    const int first = kPanels * (by_rows ? unit % columns : unit / s.out.height);
    const TileFunction* tiles = kTiles[block == 8][panels - first >= kPanels ? 1 : 0];
    t.weights = p.weights + static_cast<std::size_t>(first) * p.panel;
    t.bias = p.bias + first * kLanes;
    t.multiplier = p.multiplier + first * kLanes;
    const std::uint8_t* row_in =
        static_cast<const std::uint8_t*>(in) + static_cast<std::size_t>(y) * row_bytes(s.in);
    std::uint8_t* row_out = static_cast<std::uint8_t*>(out) +
                            static_cast<std::size_t>(y) * row_bytes(s.out) +
                            static_cast<std::size_t>(first) * t.out_plane;
    for (int x = 0; x < s.out.width;) {
      const int pixels = next_pixels(s.out.width - x);
      t.in = row_in + x * block;
      t.out = row_out + x * out_block;
      tiles[pixels - 1](t);
      x += pixels;
    }
    if (t.half && round_up(s.out.width, 8) - round_up(s.out.width, 4) == 4) {
      std::memset(row_out + round_up(s.out.width, 4) * 8, 0, 32);
    }
  }
}

// ---- Dense ----

template <int kCount>
void dense_panels(const Packed& p, const std::uint8_t* in, int first, int outputs, float* out) {
  __m512i sums[kCount];
  const std::int8_t* weights = p.weights + static_cast<std::size_t>(first) * p.panel;
  for (int n = 0; n < kCount; ++n) sums[n] = load(p.bias + (first + n) * kLanes);
  for (int at = 0; at < p.quads; ++at, weights += kVector) {
    const __m512i bytes = Whole::all(quad(in + at * 4));
    for (int n = 0; n < kCount; ++n) {
      sums[n] = dot(sums[n], bytes, load(weights + static_cast<std::size_t>(n) * p.panel));
    }
  }
  for (int n = 0; n < kCount; ++n) {
    const int at = (first + n) * kLanes;
    const __m512 logits =
        _mm512_mul_ps(_mm512_cvtepi32_ps(sums[n]), _mm512_loadu_ps(p.multiplier + at));
    const int left = outputs - at;
    const auto mask = static_cast<__mmask16>(left >= kLanes ? 0xffff : (1 << left) - 1);
    _mm512_mask_storeu_ps(out + at, mask, logits);
  }
}

}  // namespace

std::size_t row_bytes(const Tensor& t) {
  return plane_bytes(t) * static_cast<std::size_t>(divide_up(t.channels, block_of(t.channels)));
}

std::size_t tensor_bytes(const Tensor& t, int block) {
  const std::size_t rows = row_bytes(t) * static_cast<std::size_t>(t.height);
  if (block == kLanes) return rows;
  const std::size_t blocks = static_cast<std::size_t>(divide_up(t.channels, block)) *
                             static_cast<std::size_t>(block) *
                             static_cast<std::size_t>(round_up(t.width, 4)) *
                             static_cast<std::size_t>(t.height);
  return rows > blocks ? rows : blocks;
}

std::size_t packed_bytes(const Weights& w, int multiple) {
  const auto lanes = static_cast<std::size_t>(lanes_of(w.kind, w.out_channels));
  const std::size_t panels =
      static_cast<std::size_t>(divide_up(w.out_channels, static_cast<int>(lanes)));
  const auto quads = static_cast<std::size_t>(round_up(quads_of(w.kind, w.in_channels), multiple));
  // A stem's are followed by what is outside the image.
  const int outside = w.kind == Kind::kStem ? w.in_channels : 0;
  return panels * lanes * (8 + 4 * quads) + static_cast<std::size_t>(round_up(outside, kVector));
}

void pack(const Weights& w, void* packed, int multiple) {
  const int lanes = lanes_of(w.kind, w.out_channels);
  const int block = w.kind == Kind::kDepthwise ? block_of(w.out_channels) : lanes;
  const int panels = divide_up(w.out_channels, lanes);
  const int quads = round_up(quads_of(w.kind, w.in_channels), multiple);
  auto* bias = static_cast<std::int32_t*>(packed);
  auto* multiplier = reinterpret_cast<float*>(bias + panels * lanes);
  auto* weights = reinterpret_cast<std::int8_t*>(multiplier + panels * lanes);
  for (int panel = 0; panel < panels; ++panel) {
    for (int lane = 0; lane < lanes; ++lane) {
      const int output = panel * lanes + lane % block;
      if (output >= w.out_channels) continue;
      bias[panel * lanes + lane] = w.bias_i32[output];
      multiplier[panel * lanes + lane] = w.multiplier[output];
      for (int at = 0; at < quads * 4; ++at) {
        weights[((panel * quads + at / 4) * lanes + lane) * 4 + at % 4] = weight_at(w, output, at);
      }
    }
  }
  if (w.kind == Kind::kStem) {
    std::int8_t* outside = weights + panels * quads * lanes * 4;
    for (int c = 0; c < w.in_channels; ++c) {
      outside[c] = static_cast<std::int8_t>(static_cast<int>(w.outside[c]));
    }
  }
}

std::size_t scratch_bytes(const Step& s) {
  if (s.kind == Kind::kStem) return 3 * stem_slot_bytes(s);
  return s.kind == Kind::kDepthwise ? depthwise_scratch_bytes(s) : 0;
}

int units(const Step& s) {
  switch (s.kind) {
    case Kind::kStem:
      return s.out.height;
    case Kind::kDepthwise:
      return s.out.height * divide_up(s.out.channels, kLanes);
    case Kind::kPointwise:
      return s.out.height * divide_up(divide_up(s.out.channels, kLanes), kPanels);
    case Kind::kPool:
      return divide_up(s.in.channels, kLanes);
    case Kind::kDense:
      return divide_up(divide_up(s.out.channels, kLanes), kDensePanels);
  }
  return 0;
}

void stem(const Step& s, const void* packed, const void* in, void* out, void* scratch, int begin,
          int end) {
  const Packed p(packed, s.kind, s.in.channels, s.out.channels);
  const auto channels = static_cast<std::size_t>(s.in.channels);
  const int lanes = lanes_of(s.kind, s.out.channels);
  const StemRows rows = {
      static_cast<std::uint8_t*>(scratch),
      stem_slot_bytes(s),
      static_cast<std::size_t>(s.in.width) * channels,
      static_cast<std::size_t>(s.pad_left) * channels,
      reinterpret_cast<const std::uint8_t*>(p.weights) +
          p.panel * static_cast<std::size_t>(divide_up(s.out.channels, lanes)),
      channels,
  };
  for (int y = 0; y < 3; ++y) rows.fill_outside(rows.row(y), rows.slot);
  int next = begin * s.stride - s.pad_top;  // the first row that is not in its slot
  for (int y = begin; y < end; ++y) {
    const int top = y * s.stride - s.pad_top;
    for (next = next > top ? next : top; next < top + 3; ++next) {
      std::uint8_t* to = rows.row(next) + rows.left;
      if (next >= 0 && next < s.in.height) {
        std::memcpy(to, static_cast<const std::uint8_t*>(in) + static_cast<std::size_t>(next) * rows.image,
                    rows.image);
      } else {
        rows.fill_outside(to, rows.image);
      }
    }
    const std::uint8_t* window[3] = {rows.row(top), rows.row(top + 1), rows.row(top + 2)};
    auto* row_out = static_cast<std::uint8_t*>(out) + static_cast<std::size_t>(y) * row_bytes(s.out);
    if (s.in.channels == 3 && s.stride == 2) {
      stem_row_any<6>(s, p, window, row_out);
    } else {
      stem_row_any<0>(s, p, window, row_out);
    }
    clear_beyond(s.out, row_out);
  }
}

void depthwise(const Step& s, const void* packed, const void* in, void* out, void* scratch,
               int block, int begin, int end) {
  const Packed p(packed, s.kind, s.in.channels, s.out.channels);
  std::memset(scratch, 0, depthwise_scratch_bytes(s));
  DepthwiseRows d;
  d.maximum = _mm512_set1_epi8(static_cast<char>(s.maximum));
  d.vectors_in = static_cast<int>(plane_bytes(s.in)) / kVector;
  d.vectors_out = static_cast<int>(plane_bytes(s.out)) / kVector;
  d.in_row = row_bytes(s.in);
  d.out_row = row_bytes(s.out);
  d.zeros = static_cast<const std::uint8_t*>(scratch) + kVector;
  // Unit by unit along the rows of a block of channels, whose weights stay in registers; in a wide
  // image a few rows, which the next blocks find in the cache.
  const int band = s.out.width >= 56 ? kWideBand : s.out.height;
  const int panels = divide_up(s.out.channels, kLanes);
  for (int unit = begin; unit < end;) {
    const int top = unit / (band * panels) * band;
    const int height = s.out.height - top < band ? s.out.height - top : band;
    const int within = unit - top * panels;
    const int panel = within / height;
    const int first = top + within % height;
    const int left = top + height - first;
    const int rows = left < end - unit ? left : end - unit;
    const auto at = static_cast<std::size_t>(panel);
    for (int r = 0; r < 3; ++r) d.weights[r] = turn(load(p.weights + at * p.panel + r * kVector));
    d.bias = load(p.bias + panel * kLanes);
    d.multiplier = _mm512_loadu_ps(p.multiplier + panel * kLanes);
    d.in = static_cast<const std::uint8_t*>(in) + at * plane_bytes(s.in);
    d.out = static_cast<std::uint8_t*>(out);
    if (block_of(s.out.channels) == 8) {
      depthwise_rows_any<8>(s, d, first, first + rows);
    } else if (block == kLanes) {
      d.out += at * plane_bytes(s.out);
      depthwise_rows_any<16>(s, d, first, first + rows);
    } else {
      // [channel/64][y][x][64]
      d.out_row = static_cast<std::size_t>(round_up(s.out.width, 4)) * 64;
      d.out += at / 4 * d.out_row * static_cast<std::size_t>(s.out.height) + at % 4 * kLanes;
      depthwise_rows_any<64>(s, d, first, first + rows);
    }
    unit += rows;
  }
}

void pool(const Step& s, const void* in, void* out, int begin, int end) {
  const __m512i ones = _mm512_set1_epi8(1);
  const int vectors = static_cast<int>(plane_bytes(s.in)) / kVector;
  for (int panel = begin; panel < end; ++panel) {
    __m512i sum = _mm512_setzero_si512();
    for (int y = 0; y < s.in.height; ++y) {
      const std::uint8_t* row = static_cast<const std::uint8_t*>(in) +
                                static_cast<std::size_t>(y) * row_bytes(s.in) +
                                static_cast<std::size_t>(panel) * plane_bytes(s.in);
      for (int v = 0; v < vectors; ++v) sum = dot(sum, load(row + v * kVector), ones);
    }
    if (block_of(s.in.channels) == 8) {
      sum = _mm512_add_epi32(sum, _mm512_shuffle_i64x2(sum, sum, 0x4e));
    }
    const __m512i mean = requantise(sum, _mm512_set1_ps(s.multiplier));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(static_cast<std::uint8_t*>(out) + panel * kLanes),
                     _mm512_cvtusepi32_epi8(mean));
  }
}

void dense(const Step& s, const void* packed, const void* in, void* out, int begin, int end) {
  const Packed p(packed, s.kind, s.in.channels, s.out.channels);
  const auto* bytes = static_cast<const std::uint8_t*>(in);
  const int panels = divide_up(s.out.channels, kLanes);
  for (int unit = begin; unit < end; ++unit) {
    int first = unit * kDensePanels;
    const int last = first + kDensePanels < panels ? first + kDensePanels : panels;
    if (last - first == kDensePanels) {
      dense_panels<kDensePanels>(p, bytes, first, s.out.channels, static_cast<float*>(out));
      continue;
    }
    for (; first < last; ++first) {
      dense_panels<1>(p, bytes, first, s.out.channels, static_cast<float*>(out));
    }
  }
}

void run(const Step& s, const void* packed, const void* in, void* out, void* scratch, int begin,
         int end) {
  switch (s.kind) {
    case Kind::kStem:
      return stem(s, packed, in, out, scratch, begin, end);
    case Kind::kDepthwise:
      return depthwise(s, packed, in, out, scratch, kLanes, begin, end);
    case Kind::kPointwise:
      return pointwise(s, packed, in, out, begin, end);
    case Kind::kPool:
      return pool(s, in, out, begin, end);
    case Kind::kDense:
      return dense(s, packed, in, out, begin, end);
  }
}

namespace {

std::size_t own_tensor_bytes(const Tensor& t) { return tensor_bytes(t, kLanes); }
std::size_t own_packed_bytes(const Weights& w) { return packed_bytes(w, 1); }
void own_pack(const Weights& w, void* packed) { pack(w, packed, 1); }

}  // namespace
}  // namespace lucid::int8_avx512vnni

namespace lucid {

extern const KernelSet kInt8Avx512Vnni;
const KernelSet kInt8Avx512Vnni = {
    "avx512vnni",
    Precision::kInt8,
    kAvx512 | kAvx512Vnni,
    int8_avx512vnni::own_tensor_bytes,
    int8_avx512vnni::own_packed_bytes,
    int8_avx512vnni::own_pack,
    int8_avx512vnni::scratch_bytes,
    int8_avx512vnni::units,
    int8_avx512vnni::run,
};

}  // namespace lucid
