// float32 on AVX2 with FMA. Layout: blocked_layout.inc, in blocks of 16 channels, whose pixels are
// cache lines.
//
// Register tile of a pointwise layer: 6 pixels x 16 output channels, 12 sums; a step loads 2
// vectors of weights and broadcasts 6 values for 12 multiply-adds. Depthwise: 4 pixels x 8
// channels. Stem: 12 pixels x 8 channels. Bound: multiply-adds, 8 float32 each, two a cycle.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "../cpu.h"
#include "../kernels.h"
#include "intrinsics.h"

namespace lucid {
namespace float32_avx2 {
namespace {

#include "vector_avx2.inc"

using Element = float;
using Product = float;
constexpr int kBlock = 16;
constexpr int kHalf = kBlock / 2;
constexpr int kDepth = 1;
constexpr int kPair = 1;
constexpr std::size_t kSlack = 0;
constexpr std::size_t kProductBytes = sizeof(Product);
constexpr int kPixels = 6;
constexpr int kVectors = 2;
constexpr int kColumns = 4;
constexpr int kStemPixels = 12;
constexpr int kDenseVectors = 8;

inline Product to_product(float value) { return value; }

struct Vector : Floats8 {
  // One input channel of P pixels, kPixel values apart, times N vectors of weights.
  template <int P, int N, int kPixel>
  static void multiply(Type (&sum)[P][N], const Element* in, const Product* weights) {
    Type weight[N];
    LUCID_UNROLL
    for (int n = 0; n < N; ++n) weight[n] = load(weights + n * kLanes);
    LUCID_UNROLL
    for (int p = 0; p < P; ++p) {
      const Type value = broadcast(in[p * kPixel]);
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
}  // namespace float32_avx2

extern const KernelSet kFloat32Avx2;
const KernelSet kFloat32Avx2 = float32_avx2::kernel_set("avx2", Precision::kFloat32, kAvx2);

}  // namespace lucid
