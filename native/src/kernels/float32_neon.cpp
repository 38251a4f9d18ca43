// float32 on AArch64. Layout: blocked_layout.inc, in blocks of 16 channels.
//
// Register tile of a pointwise layer: 8 pixels x 8 output channels, 16 sums; for four input
// channels a step loads 8 vectors of weights and 8 of values for 64 multiply-adds by lane.
// Depthwise: 4 pixels x 4 channels. Stem: 12 pixels x 4 channels. Bound: multiply-adds, 4 float32
// each; two to four a cycle.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "../cpu.h"
#include "../kernels.h"
#include "intrinsics.h"

namespace lucid {
namespace float32_neon {
namespace {

using Element = float;
using Product = float;
constexpr int kBlock = 16;
constexpr int kHalf = kBlock / 2;
constexpr int kDepth = 4;
constexpr int kPair = 1;
constexpr std::size_t kSlack = 0;
constexpr std::size_t kProductBytes = sizeof(Product);
constexpr int kPixels = 8;
constexpr int kVectors = 2;
constexpr int kColumns = 4;
constexpr int kStemPixels = 12;
constexpr int kDenseVectors = 8;

inline Product to_product(float value) { return value; }

struct Vector {
  using Type = float32x4_t;
  static constexpr int kLanes = 4;
  static Type load(const float* at) { return vld1q_f32(at); }
  static void store(float* at, Type a) { vst1q_f32(at, a); }
  static Type broadcast(float a) { return vdupq_n_f32(a); }
  static Type add(Type a, Type b) { return vaddq_f32(a, b); }
  static Type scale(Type a, Type b) { return vmulq_f32(a, b); }
  static Type multiply_add(Type a, Type b, Type sum) { return vfmaq_f32(sum, a, b); }
  static Type clamp(Type a, Type ceiling) {
    return vminq_f32(vmaxq_f32(a, vdupq_n_f32(0)), ceiling);
  }

  // Four input channels of P pixels, kPixel values apart, times N vectors of weights of each.
  template <int P, int N, int kPixel>
  static void multiply(Type (&sum)[P][N], const Element* in, const Product* weights) {
    Type values[P];
    LUCID_UNROLL
    for (int p = 0; p < P; ++p) values[p] = load(in + p * kPixel);
    multiply_lane<P, N, 0>(sum, values, weights);
    multiply_lane<P, N, 1>(sum, values, weights + N * kLanes);
    multiply_lane<P, N, 2>(sum, values, weights + 2 * N * kLanes);
    multiply_lane<P, N, 3>(sum, values, weights + 3 * N * kLanes);
  }
  template <int P, int N, int kLane>
  static void multiply_lane(Type (&sum)[P][N], const Type (&values)[P], const Product* weights) {
    Type weight[N];
    LUCID_UNROLL
    for (int n = 0; n < N; ++n) weight[n] = load(weights + n * kLanes);
    LUCID_UNROLL
    for (int p = 0; p < P; ++p) {
      LUCID_UNROLL
      for (int n = 0; n < N; ++n) {
        sum[p][n] = vfmaq_laneq_f32(sum[p][n], weight[n], values[p], kLane);
      }
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
}  // namespace float32_neon

extern const KernelSet kFloat32Neon;
const KernelSet kFloat32Neon = float32_neon::kernel_set("neon", Precision::kFloat32, kNeon);

}  // namespace lucid
