// float32 on AVX-512. Layout: blocked_layout.inc, in blocks of 16 channels, whose pixels are cache
// lines.
//
// Register tile of a pointwise layer: 14 pixels x 32 output channels, 28 sums; a step loads 2
// vectors of weights and broadcasts 14 values for 28 multiply-adds. Depthwise: 4 pixels x 16
// channels. Stem: 14 pixels x 16 channels. Bound: multiply-adds, 16 float32 each; one a cycle on
// Zen 4, two on Intel's servers. Wide pointwise layers need 7/8 of them: blocked_strassen.inc.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "../cpu.h"
#include "../kernels.h"
#include "intrinsics.h"

namespace lucid {
namespace float32_avx512 {
namespace {

#include "vector_avx2.inc"
#include "vector_avx512.inc"

using Element = float;
using Product = float;
constexpr int kBlock = 16;
constexpr int kHalf = kBlock / 2;
constexpr int kDepth = 1;
constexpr int kPair = 1;
constexpr std::size_t kSlack = 0;
constexpr std::size_t kProductBytes = sizeof(Product);
constexpr int kPixels = 14;
constexpr int kVectors = 2;
constexpr int kColumns = 4;
constexpr int kStemPixels = 14;
constexpr int kDenseVectors = 8;

inline Product to_product(float value) { return value; }

using Vector = Floats16;
using Narrow = Floats8;

#include "blocked_layout.inc"
#include "blocked_matrix.inc"
#include "blocked_pointwise.inc"
#include "blocked_window.inc"
#include "blocked_stem.inc"
#include "blocked_set.inc"
#include "blocked_strassen.inc"

}  // namespace
}  // namespace float32_avx512

extern const KernelSet kFloat32Avx512;
const KernelSet kFloat32Avx512 = float32_avx512::strassen_set("avx512", kAvx512);

}  // namespace lucid
