// int8 on AMX, whose tile of 16 pixels x 64 channels times a tile of 64 channels x 16 outputs adds
// 16384 products to 16 x 16 sums. Stem, depthwise, pool and classifier are those of AVX-512 VNNI,
// as are their layouts; a pointwise layer of more than 16 channels reads
//
//   by channels   [channel/64][y][x][64 channels], rows padded to fours of pixels
//
// and takes its pixels in one sequence, padding included, so that a tile is full at any width.
// Weights are in panels of 16 outputs, whole tiles each: [channel/64][16 quads][16 outputs][4].
//
// Register tile: 32 pixels x 32 outputs in four tiles of sums, two of pixels, two of weights; each
// 64 channels are 4 loads for 4 products. Sums go through memory (a kilobyte a tile) to the vector
// unit, which finishes a block's while the next is summed.
// Bound: 16 cycles a product, so 1024 products of bytes a cycle; below 256 channels the epilogue,
// some 40 cycles for each tile of sums.

#include <cstring>

#include "../cpu.h"
#include "int8_avx512vnni.h"
#include "intrinsics.h"

#if defined(LUCID_EMULATE_AMX)
#include "../../tests/amx_emulation.h"
#endif

namespace lucid::int8_amx {
namespace {

namespace vnni = int8_avx512vnni;

constexpr int kSide = 16;                   // rows of a tile; its outputs and quads of channels
constexpr int kDepth = 64;                  // channels in a tile
constexpr std::size_t kTile = 1024;         // bytes
constexpr int kPixels = 2 * kSide;          // of a block
constexpr int kPanels = 2;
constexpr int kFour = 4;                    // pixels that are finished at once
constexpr int kParts = 4 * kSide / kFour;   // fours of a block, of all its tiles of sums

int divide_up(int n, int by) { return (n + by - 1) / by; }
int round_up(int n, int to) { return divide_up(n, to) * to; }
std::size_t size(int n) { return static_cast<std::size_t>(n); }

// Fewer channels than this waste most of a tile.
bool takes_tiles(int in_channels) { return in_channels > 16; }

// Eight tiles of 16 rows of 64 bytes.
struct alignas(64) Configuration {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Four pixels of 16 outputs to be finished.
struct Part {
  const std::int32_t* sums;
  const float* multiplier;
  const std::int32_t* bias;
  std::uint8_t* out;
  std::uint32_t keep;  // bits of the four pixels that are no padding
};

// The block whose sums are in memory.
struct Pending {
  Part parts[kParts];
  int count = 0;
  int done = 0;
};

// What a layer's blocks share.
struct Layer {
  const std::uint8_t* in;
  std::size_t in_plane;  // bytes from 64 channels to the next
  const std::int32_t* bias;
  const float* multiplier;
  const std::int8_t* weights;
  std::size_t panel;  // bytes
  int depth;          // tiles
  int pixels;         // padding included
  int padded;         // pixels of a row
  int width;
  std::uint8_t* out;
  std::size_t out_row;
  std::size_t out_plane;
  __m512i maximum;
  bool half;  // at most 8 channels out
};

inline __m512i requantise(const Part& p, int pixel) {
  const __m512i sum = _mm512_add_epi32(_mm512_loadu_si512(p.sums + pixel * kSide),
                                       _mm512_loadu_si512(p.bias));
  return _mm512_cvtps_epi32(
      _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(p.multiplier)));
}

// The next part, stored by pixels: in each 128-bit lane, four pixels of each of 4 channels.
inline void finish_part(const Layer& l, Pending& pending) {
  const Part& p = pending.parts[pending.done++];
  const __m512i low = _mm512_packs_epi32(requantise(p, 0), requantise(p, 1));
  const __m512i high = _mm512_packs_epi32(requantise(p, 2), requantise(p, 3));
  const __m512i bytes = _mm512_min_epu8(_mm512_packus_epi16(low, high), l.maximum);
  const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i pixels =
      _mm512_and_si512(_mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(order)),
                       _mm512_set1_epi32(static_cast<int>(p.keep)));
  if (l.half) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p.out), _mm512_castsi512_si256(pixels));
  } else {
    _mm512_storeu_si512(p.out, pixels);
  }
}

// Sums a block of pixel tiles x panels into `sums`, kTile bytes each, while it finishes `pending`.
template <int kTiles, int kCount>
void sum_block(const Layer& l, int first_pixel, int first_panel, std::int32_t* sums,
               Pending& pending) {
  const std::uint8_t* in = l.in + size(first_pixel) * kDepth;
  const std::int8_t* weights = l.weights + size(first_panel) * l.panel;
  const int share = divide_up(pending.count, l.depth);
  _tile_zero(0);
  if (kCount > 1) _tile_zero(1);
  if (kTiles > 1) _tile_zero(2);
  if (kTiles > 1 && kCount > 1) _tile_zero(3);
  for (int k = 0; k < l.depth; ++k, in += l.in_plane, weights += kTile) {
    _tile_loadd(4, in, 64);
    _tile_loadd(6, weights, 64);
    _tile_dpbusd(0, 4, 6);
    if (kCount > 1) {
      _tile_loadd(7, weights + l.panel, 64);
      _tile_dpbusd(1, 4, 7);
    }
    if (kTiles > 1) {
      _tile_loadd(5, in + kTile, 64);
      _tile_dpbusd(2, 5, 6);
    }
    if (kTiles > 1 && kCount > 1) _tile_dpbusd(3, 5, 7);
    for (int i = 0; i < share && pending.done < pending.count; ++i) finish_part(l, pending);
  }
  _tile_stored(0, sums, 64);
  if (kCount > 1) _tile_stored(1, sums + 256, 64);
  if (kTiles > 1) _tile_stored(2, sums + 512, 64);
  if (kTiles > 1 && kCount > 1) _tile_stored(3, sums + 768, 64);
}

// Names the parts of the block that was just summed.
void list_parts(const Layer& l, int first_pixel, int first_panel, int tiles, int panels,
                const std::int32_t* sums, Pending& pending) {
  pending.count = pending.done = 0;
  for (int at = 0; at < tiles * kSide && first_pixel + at < l.pixels; at += kFour) {
    const int y = (first_pixel + at) / l.padded;
    const int x = (first_pixel + at) % l.padded;
    for (int n = 0; n < panels; ++n) {
      Part& part = pending.parts[pending.count++];
      part.sums = sums + (at / kSide * kPanels + n) * 256 + at % kSide * kSide;
      part.multiplier = l.multiplier + (first_panel + n) * kSide;
      part.bias = l.bias + (first_panel + n) * kSide;
      part.out = l.out + size(y) * l.out_row + size(first_panel + n) * l.out_plane +
                 size(x) * (l.half ? 8 : kSide);
      const int left = l.width - x;
      part.keep = left >= kFour ? 0xffffffffU : 0xffffffffU >> (8 * (kFour - left));
      // Rows of at most 8 channels are padded to eight pixels.
      if (l.half && left <= kFour && x % 8 == 0) std::memset(part.out + 32, 0, 32);
    }
  }
}

bool weights_fit_cache(const Step& s) {
  return round_up(s.in.channels, kDepth) * round_up(s.out.channels, kSide) <= 16 * 1024;
}

int blocks_of(const Step& s) { return divide_up(s.in.height * round_up(s.in.width, 4), kPixels); }
int columns_of(const Step& s) { return divide_up(divide_up(s.out.channels, kSide), kPanels); }

// Sums of the block being summed and of the one being finished.
constexpr std::size_t kSumBytes = 2 * 4 * kTile;

void pointwise(const Step& s, const void* packed, const void* in, void* out, void* scratch,
               int begin, int end) {
  const int panels = divide_up(s.out.channels, kSide);
  Layer l;
  l.depth = divide_up(s.in.channels, kDepth);
  l.padded = round_up(s.in.width, 4);
  l.width = s.in.width;
  l.pixels = s.in.height * l.padded;
  l.in = static_cast<const std::uint8_t*>(in);
  l.in_plane = size(l.pixels) * kDepth;
  l.bias = static_cast<const std::int32_t*>(packed);
  l.multiplier = reinterpret_cast<const float*>(l.bias + panels * kSide);
  l.weights = reinterpret_cast<const std::int8_t*>(l.multiplier + panels * kSide);
  l.panel = size(l.depth) * kTile;
  l.out = static_cast<std::uint8_t*>(out);
  l.out_row = vnni::row_bytes(s.out);
  l.half = s.out.channels <= 8;
  l.out_plane = l.out_row / size(l.half ? 1 : panels);
  l.maximum = _mm512_set1_epi8(static_cast<char>(s.maximum));

  const Configuration configuration;
  _tile_loadconfig(&configuration);
  auto* sums = static_cast<std::int32_t*>(scratch);
  Pending pending;
  const int blocks = blocks_of(s), columns = columns_of(s);
  const bool by_blocks = weights_fit_cache(s);
  for (int unit = begin; unit < end; ++unit) {
    const int pixel = kPixels * (by_blocks ? unit / columns : unit % blocks);
    const int panel = kPanels * (by_blocks ? unit % columns : unit / blocks);
    const int tiles = l.pixels - pixel > kSide ? 2 : 1;
    const int count = panels - panel >= kPanels ? kPanels : 1;
    std::int32_t* const to = sums + (unit & 1) * (kSumBytes / 2 / sizeof(std::int32_t));
    if (tiles == 2) {
      (count == 2 ? sum_block<2, 2> : sum_block<2, 1>)(l, pixel, panel, to, pending);
    } else {
      (count == 2 ? sum_block<1, 2> : sum_block<1, 1>)(l, pixel, panel, to, pending);
    }
    list_parts(l, pixel, panel, tiles, count, to, pending);
  }
  while (pending.done < pending.count) finish_part(l, pending);
  _tile_release();
}

std::size_t tensor_bytes(const Tensor& t) {
  // The last tile of pixels may read beyond.
  return vnni::tensor_bytes(t, takes_tiles(t.channels) ? kDepth : 16) + kTile * 2;
}

int multiple_of(const Weights& w) {
  return w.kind == Kind::kPointwise && takes_tiles(w.in_channels) ? kSide : 1;
}
std::size_t packed_bytes(const Weights& w) { return vnni::packed_bytes(w, multiple_of(w)); }
void pack(const Weights& w, void* packed) { vnni::pack(w, packed, multiple_of(w)); }

bool takes_tiles(const Step& s) {
  return s.kind == Kind::kPointwise && takes_tiles(s.in.channels);
}

std::size_t scratch_bytes(const Step& s) {
  return takes_tiles(s) ? kSumBytes : vnni::scratch_bytes(s);
}

int units(const Step& s) { return takes_tiles(s) ? blocks_of(s) * columns_of(s) : vnni::units(s); }

void run(const Step& s, const void* packed, const void* in, void* out, void* scratch, int begin,
         int end) {
  if (takes_tiles(s)) return pointwise(s, packed, in, out, scratch, begin, end);
  if (s.kind == Kind::kDepthwise) {
    const int block = takes_tiles(s.out.channels) ? kDepth : 16;
    return vnni::depthwise(s, packed, in, out, scratch, block, begin, end);
  }
  vnni::run(s, packed, in, out, scratch, begin, end);
}

}  // namespace
}  // namespace lucid::int8_amx

namespace lucid {

extern const KernelSet kInt8Amx;
const KernelSet kInt8Amx = {
    "amx",
    Precision::kInt8,
#if defined(LUCID_EMULATE_AMX)
    kAvx512 | kAvx512Vnni,
#else
    kAvx512 | kAvx512Vnni | kAmxInt8,
#endif
    int8_amx::tensor_bytes,
    int8_amx::packed_bytes,
    int8_amx::pack,
    int8_amx::scratch_bytes,
    int8_amx::units,
    int8_amx::run,
};

}  // namespace lucid
