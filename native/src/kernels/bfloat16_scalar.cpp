// bfloat16 in plain C++; layout and division are those of scalar.h. Activations and the weights of
// pointwise layers and the classifier have 16 bits; sums, other weights and biases are float32.

#include "scalar.h"

namespace lucid {
namespace {

#include "bfloat16.inc"

struct Half {
  std::uint16_t bits;
};

struct Bfloat16 {
  using Value = Half;
  using Weight = float;
  using Sum = float;
  using Channel = float;  // the bias

  static Weight weight(const Weights& weights, std::size_t k) {
    const float weight = weights.weight_f32[k];
    const bool window = weights.kind == Kind::kStem || weights.kind == Kind::kDepthwise;
    return window ? weight : from_bfloat16(to_bfloat16(weight));
  }
  static Channel channel(const Weights& weights, std::size_t k) { return weights.bias_f32[k]; }
  static Sum outside(const Weights& weights, std::size_t k) { return weights.outside[k]; }
  static Sum wide(float value) { return value; }
  static Sum wide(Half value) { return from_bfloat16(value.bits); }
  static Sum start(Channel bias) { return bias; }
  static Value value(Sum sum, Channel, const Step& step) {
    const float positive = sum > 0.0f ? sum : 0.0f;
    return {to_bfloat16(positive < step.ceiling ? positive : step.ceiling)};
  }
  static Value mean(Sum sum, const Step& step) { return {to_bfloat16(sum * step.multiplier)}; }
  static float logit(Sum sum, Channel) { return sum; }
};

using Kernels = ScalarKernels<Bfloat16>;

}  // namespace

extern const KernelSet kBfloat16Scalar;
const KernelSet kBfloat16Scalar = {"scalar",
                                   Precision::kBfloat16,
                                   0,
                                   Kernels::tensor_bytes,
                                   Kernels::packed_bytes,
                                   Kernels::pack,
                                   Kernels::scratch_bytes,
                                   Kernels::units,
                                   Kernels::run};

}  // namespace lucid
