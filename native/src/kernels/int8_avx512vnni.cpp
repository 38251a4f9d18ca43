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
// Register tiles: pointwise, up to 14 pixels (of several rows if they are short) x 32 outputs in 28
// sums, each step 2 loads of weights and 14 broadcasts for 28 vpdpbusd; stem, 16 pixels, one a
// lane, x 8 outputs, whose weights vpdpbusd broadcasts from memory; depthwise, 4 pixels x 16
// channels, 12 vpdpbusd that use 9 of 12 products. Bound: vpdpbusd, one (Zen 4) or two (Intel's
// servers) vectors a cycle. Finishing 16 sums costs two conversions, a product and a share of
// packing; stem, depthwise and pointwise of few inputs do so while they sum others.

#include "int8_avx512vnni.h"

#include <cstring>

#include "../cpu.h"
#include "intrinsics.h"

namespace lucid::int8_avx512vnni {
namespace {

#include "units.inc"
#include "int8_avx512vnni_layout.inc"
#include "int8_avx512vnni_weights.inc"
#include "int8_avx512vnni_stem.inc"
#include "int8_avx512vnni_depthwise.inc"
#include "int8_avx512vnni_pointwise.inc"

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
  if (w.kind == Kind::kPool) return 0;
  const auto lanes = static_cast<std::size_t>(lanes_of(w.kind, w.out_channels));
  const std::size_t panels =
      static_cast<std::size_t>(divide_up(w.out_channels, static_cast<int>(lanes)));
  const auto quads = static_cast<std::size_t>(round_up(quads_of(w.kind, w.in_channels), multiple));
  // A stem's are followed by what is outside the image.
  const int outside = w.kind == Kind::kStem ? w.in_channels : 0;
  return panels * lanes * (8 + 4 * quads) + static_cast<std::size_t>(round_up(outside, kVector));
}

void pack(const Weights& w, void* packed, int multiple) {
  const int padded = round_up(w.out_channels, lanes_of(w.kind, w.out_channels));
  const int quads = round_up(quads_of(w.kind, w.in_channels), multiple);
  auto* bias = static_cast<std::int32_t*>(packed);
  auto* multiplier = reinterpret_cast<float*>(bias + padded);
  auto* weights = reinterpret_cast<std::int8_t*>(multiplier + padded);
  pack_scales(w, w.bias_i32, bias);
  pack_scales(w, w.multiplier, multiplier);
  switch (w.kind) {
    case Kind::kStem:
      return pack_stem(w, quads, weights);
    case Kind::kDepthwise:
      return pack_depthwise(w, weights);
    case Kind::kPointwise:
    case Kind::kDense:
      return pack_matrix(w, quads, weights);
    case Kind::kPool:
      break;
  }
}

std::size_t scratch_bytes(const Step& s) {
  if (s.kind == Kind::kStem) return stem_scratch_bytes(s);
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

void depthwise(const Step& s, const void* packed, const void* in, void* out, void* scratch,
               int block, int begin, int end) {
  const Packed p(packed, s.kind, s.in.channels, s.out.channels);
  std::memset(scratch, 0, depthwise_scratch_bytes(s));
  DepthwiseBlock d;
  d.vectors_in = static_cast<int>(plane_bytes(s.in)) / kVector;
  d.vectors_out = static_cast<int>(plane_bytes(s.out)) / kVector;
  d.in_row = row_bytes(s.in);
  d.out_row = row_bytes(s.out);
  d.zeros = static_cast<const std::uint8_t*>(scratch) + kVector;
  // Along the rows of a block of channels, whose weights stay in registers; a few rows in a wide
  // image, so that the next blocks find theirs in the cache.
  const Units division{s.out.height, divide_up(s.out.channels, kLanes), true};
  const int band = s.out.width >= 56 ? kWideBand : s.out.height;
  for (int top = 0; top < s.out.height; top += band) {
    for (int panel = 0; panel < division.parts; ++panel) {
      int first = division.row(begin, panel), last = division.row(end, panel);
      if (first < top) first = top;
      if (last > top + band) last = top + band;
      if (first >= last) continue;
      const auto at = static_cast<std::size_t>(panel);
      d.weights = p.weights + at * p.panel;
      d.bias = p.bias + panel * kLanes;
      d.multiplier = p.multiplier + panel * kLanes;
      d.in = static_cast<const std::uint8_t*>(in) + at * plane_bytes(s.in);
      d.out = static_cast<std::uint8_t*>(out);
      if (block_of(s.out.channels) == 8) {
        depthwise_rows<8>(s, d, first, last);
      } else if (block == kLanes) {
        d.out += at * plane_bytes(s.out);
        depthwise_rows<16>(s, d, first, last);
      } else {
        // [channel/64][y][x][64]
        d.out_row = static_cast<std::size_t>(round_up(s.out.width, 4)) * 64;
        d.out += at / 4 * d.out_row * static_cast<std::size_t>(s.out.height) + at % 4 * kLanes;
        depthwise_rows<64>(s, d, first, last);
      }
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
