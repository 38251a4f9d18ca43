// float32 in plain C++; layout and division are those of scalar.h.

#include "scalar.h"

namespace lucid {
namespace {

struct Float32 {
  using Value = float;
  using Weight = float;
  using Sum = float;
  using Channel = float;  // the bias

  static Weight weight(const Weights& weights, std::size_t k) { return weights.weight_f32[k]; }
  static Channel channel(const Weights& weights, std::size_t k) { return weights.bias_f32[k]; }
  static Sum outside(const Weights& weights, std::size_t k) { return weights.outside[k]; }
  static Sum wide(float value) { return value; }
  static Sum start(Channel bias) { return bias; }
  static Value value(Sum sum, Channel, const Step& step) {
    const float positive = sum > 0.0f ? sum : 0.0f;
    return positive < step.ceiling ? positive : step.ceiling;
  }
  static Value mean(Sum sum, const Step& step) { return sum * step.multiplier; }
  static float logit(Sum sum, Channel) { return sum; }
};

using Kernels = ScalarKernels<Float32>;

}  // namespace

extern const KernelSet kFloat32Scalar;
const KernelSet kFloat32Scalar = {"scalar",
                                  Precision::kFloat32,
                                  0,
                                  Kernels::tensor_bytes,
                                  Kernels::packed_bytes,
                                  Kernels::pack,
                                  Kernels::scratch_bytes,
                                  Kernels::units,
                                  Kernels::run};

}  // namespace lucid
