// float32 on AMX, as three products of bfloat16: values and weights are split into a bfloat16 and
// what is left of them in another. Not quite float32: of real networks the logits are within 3e-5
// of their range, those of float32 within 2e-6. Layout: blocked_layout.inc, in blocks of 32
// channels; the last block is filled up.
//
// Register tile of a pointwise layer: 32 pixels x 32 output channels, 4 AMX tiles; see
// amx_pointwise.inc. Everything else is float32 on AVX-512.
// Bound: pointwise layers 48 cycles for 16 x 16 x 32 products, and splitting the values.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../kernels.h"
#include "amx.h"

namespace lucid {
namespace float32_split_amx {
namespace {

#include "bfloat16.inc"
#include "vector_avx512.inc"

using Element = float;
using Product = float;
constexpr int kBlock = 32;
constexpr int kHalf = kBlock;
constexpr int kDepth = 1;
constexpr int kPair = 1;
constexpr std::size_t kSlack = 0;
constexpr std::size_t kProductBytes = 2 * sizeof(std::uint16_t);
constexpr int kPixels = 32;
constexpr int kVectors = 2;
constexpr int kColumns = 4;
constexpr int kStemPixels = 14;
constexpr int kDenseVectors = 8;

constexpr int kParts = 2;

inline Product to_product(float value) { return value; }

using Vector = Floats16;
using Narrow = Vector;

#include "blocked_layout.inc"
#include "blocked_matrix.inc"

// Pixels in two parts: [block][part][pixel][channel].
const std::uint16_t* bfloat16_pixels(const Element* in, const Layout& layout, int count,
                                     std::uint16_t* parts, std::ptrdiff_t* block) {
  constexpr int kPart = kPixels * kBlock;
  for (int b = 0; b < layout.blocks; ++b) {
    for (int i = 0; i < count * kBlock; i += Vector::kLanes) {
      const auto value = Vector::load(in + product(b, layout.pixels, kBlock) + i);
      std::uint16_t* at = parts + product(b, 2, kPart) + i;
      Bfloats16::store(at, value);
      Bfloats16::store(at + kPart, _mm512_sub_ps(value, Bfloats16::load(at)));
    }
  }
  *block = 2 * kPart;
  return parts;
}
std::size_t pointwise_scratch_bytes(const Step& step) {
  return static_cast<std::size_t>(product(Layout(step.in).blocks, 2, kPixels, kBlock)) *
         sizeof(std::uint16_t);
}

#include "amx_pointwise.inc"
#include "blocked_window.inc"
#include "blocked_stem.inc"
#include "blocked_set.inc"

}  // namespace
}  // namespace float32_split_amx

extern const KernelSet kFloat32SplitAmx;
const KernelSet kFloat32SplitAmx = float32_split_amx::kernel_set(
    "amx", Precision::kFloat32Split, kAvx512 | kAvx512Bf16 | amx_features(kAmxBf16));

}  // namespace lucid
