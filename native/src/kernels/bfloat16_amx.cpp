// bfloat16 on AMX: activations and pointwise weights of 16 bits, sums in float32. Layout:
// blocked_layout.inc, in blocks of 32 channels, whose pixels are the rows of tiles; the last block
// is filled up, since a tile's rows are.
//
// Register tile of a pointwise layer: 32 pixels x 32 output channels, 4 AMX tiles; see
// amx_pointwise.inc. Stem and depthwise layers compute in float32 on AVX-512: 14 pixels x 16
// channels, 4 x 16. Bound: pointwise layers 16 cycles for 16 x 16 x 32 products; in all, the stores
// of the sums and the depthwise layers.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../kernels.h"
#include "amx.h"

namespace lucid {
namespace bfloat16_amx {
namespace {

#include "bfloat16.inc"
#include "vector_avx512.inc"

using Element = std::uint16_t;
using Product = std::uint16_t;
constexpr int kBlock = 32;
constexpr int kHalf = kBlock;
constexpr int kDepth = 2;
constexpr int kPair = 2;
constexpr std::size_t kSlack = 32 * 64;
constexpr std::size_t kProductBytes = sizeof(Product);
constexpr int kPixels = 32;
constexpr int kVectors = 2;
constexpr int kColumns = 4;
constexpr int kStemPixels = 14;
constexpr int kDenseVectors = 8;

constexpr int kParts = 1;

inline Product to_product(float value) { return to_bfloat16(value); }

using Vector = Bfloats16;
using Narrow = Vector;

#include "blocked_layout.inc"
#include "blocked_matrix.inc"

// Pixels as bfloat16: as they are.
const std::uint16_t* bfloat16_pixels(const Element* in, const Layout& layout, int, std::uint16_t*,
                                     std::ptrdiff_t* block) {
  *block = product(layout.pixels, kBlock);
  return in;
}
std::size_t pointwise_scratch_bytes(const Step&) { return 0; }

#include "amx_pointwise.inc"
#include "blocked_window.inc"
#include "blocked_stem.inc"
#include "blocked_set.inc"

}  // namespace
}  // namespace bfloat16_amx

extern const KernelSet kBfloat16Amx;
const KernelSet kBfloat16Amx = bfloat16_amx::kernel_set(
    "amx", Precision::kBfloat16, kAvx512 | kAvx512Bf16 | amx_features(kAmxBf16));

}  // namespace lucid
