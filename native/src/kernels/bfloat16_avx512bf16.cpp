// bfloat16 on AVX-512 BF16: activations and pointwise weights of 16 bits, sums in float32. Layout:
// blocked_layout.inc, in blocks of 32 channels, whose pixels are cache lines.
//
// Register tile of a pointwise layer: 14 pixels x 32 output channels, 28 sums; a step loads 2
// vectors of pairs of weights and broadcasts 14 pairs of values for 28 times vdpbf16ps. Stem and
// depthwise layers compute in float32: 14 pixels x 16 channels, 4 x 16. Bound: vdpbf16ps, 32
// products; on Zen 4 one a cycle, twice the products of float32. On Intel's servers it takes twice
// as long, so there it only saves memory. Logits of real networks are within 3% of their range, as
// with all sets of bfloat16.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "../cpu.h"
#include "../kernels.h"
#include "intrinsics.h"

namespace lucid {
namespace bfloat16_avx512bf16 {
namespace {

#include "bfloat16.inc"
#include "vector_avx512.inc"

using Element = std::uint16_t;
using Product = std::uint16_t;
constexpr int kBlock = 32;
constexpr int kHalf = kBlock / 2;
constexpr int kDepth = 2;
constexpr int kPair = 2;
constexpr std::size_t kSlack = 0;
constexpr std::size_t kProductBytes = sizeof(Product);
constexpr int kPixels = 14;
constexpr int kVectors = 2;
constexpr int kColumns = 4;
constexpr int kStemPixels = 14;
constexpr int kDenseVectors = 8;

inline Product to_product(float value) { return to_bfloat16(value); }

using Vector = Bfloats16;
using Narrow = Vector;

#include "blocked_layout.inc"
#include "blocked_matrix.inc"
#include "blocked_pointwise.inc"
#include "blocked_window.inc"
#include "blocked_stem.inc"
#include "blocked_set.inc"

}  // namespace
}  // namespace bfloat16_avx512bf16

extern const KernelSet kBfloat16Avx512Bf16;
const KernelSet kBfloat16Avx512Bf16 =
    bfloat16_avx512bf16::kernel_set("avx512bf16", Precision::kBfloat16, kAvx512 | kAvx512Bf16);

}  // namespace lucid
