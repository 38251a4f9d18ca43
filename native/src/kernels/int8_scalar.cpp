// int8 in plain C++; layout and division are those of scalar.h. It is the definition that the other
// int8 kernels have to meet to the last bit.

#include <cfloat>

#include "scalar.h"

static_assert(FLT_EVAL_METHOD == 0, "float must be computed as float: compile with -mfpmath=sse");

namespace lucid {
namespace {

// Between 0 and 2^22, float32 plus 2^23 has no place for fractions, so the sum is rounded to a whole
// number, half to even; rintf would be a call for each value on CPUs before SSE 4.1.
constexpr float kRounder = 8388608.0f;

std::uint8_t requantise(std::int32_t sum, float multiplier, int maximum) {
  const float scaled = static_cast<float>(sum) * multiplier;
  const float largest = static_cast<float>(maximum);
  const float positive = scaled > 0.0f ? scaled : 0.0f;
  const float clamped = positive < largest ? positive : largest;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>((clamped + kRounder) - kRounder));
}

struct Int8 {
  using Value = std::uint8_t;
  using Weight = std::int8_t;
  using Sum = std::int32_t;
  struct Channel {
    std::int32_t bias;
    float multiplier;
  };

  static Weight weight(const Weights& weights, std::size_t k) { return weights.weight_i8[k]; }
  static Channel channel(const Weights& weights, std::size_t k) {
    return {weights.bias_i32[k], weights.multiplier[k]};
  }
  static Sum outside(const Weights& weights, std::size_t k) {
    return static_cast<Sum>(weights.outside[k]);
  }
  static Sum wide(Value value) { return value; }
  static Sum wide(Weight value) { return value; }
  static Sum start(const Channel& channel) { return channel.bias; }
  static Value value(Sum sum, const Channel& channel, const Step& step) {
    return requantise(sum, channel.multiplier, step.maximum);
  }
  static Value mean(Sum sum, const Step& step) { return requantise(sum, step.multiplier, 255); }
  static float logit(Sum sum, const Channel& channel) {
    return static_cast<float>(sum) * channel.multiplier;
  }
};

using Kernels = ScalarKernels<Int8>;

}  // namespace

extern const KernelSet kInt8Scalar;
const KernelSet kInt8Scalar = {"scalar",
                               Precision::kInt8,
                               0,
                               Kernels::tensor_bytes,
                               Kernels::packed_bytes,
                               Kernels::pack,
                               Kernels::scratch_bytes,
                               Kernels::units,
                               Kernels::run};

}  // namespace lucid
