#include "plan.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "error.h"

namespace lucid {
namespace {

constexpr std::int64_t kMaxPoolCells = 1 << 23;  // sums of so many bytes fit int32

// Kernels count bytes and values of one tensor in int.
constexpr std::size_t kMaxTensorBytes = std::numeric_limits<int>::max();
constexpr int kMaxSide = 1 << 24;  // so that sums of sides and borders fit int too

std::string size_text(int height, int width) {
  return std::to_string(height) + "x" + std::to_string(width);
}

[[noreturn]] void too_large(int height, int width) {
  throw Error(ErrorKind::kImage,
              "images of " + size_text(height, width) + " pixels are too large for this network");
}

void check_size(const std::vector<PackedLayer>& layers, int resolution, int height, int width) {
  int least = 1;  // the total stride, as far as it counts
  for (const PackedLayer& packed : layers) {
    least = std::min(least * packed.layer.stride, resolution);
  }
  if (height < least || width < least) {
    throw Error(ErrorKind::kImage, "the network takes images of at least " +
                                       size_text(least, least) + " pixels, got " +
                                       size_text(height, width));
  }
  if (height > kMaxSide || width > kMaxSide) too_large(height, width);
  const std::int64_t bytes = std::int64_t{layers.front().layer.in_channels} * height;
  if (bytes > static_cast<std::int64_t>(kMaxTensorBytes) / width) too_large(height, width);
}

// The output of `layer`, and the border that `next` wants to see around it.
Tensor output_of(const Layer& layer, const Tensor& in, const Layer* next) {
  Tensor out{};
  out.channels = layer.out_channels;
  out.height = layer.output_side(in.height);
  out.width = layer.output_side(in.width);
  if (next != nullptr && next->kind == Kind::kDepthwise) {
    out.top = next->border_before(out.height);
    out.bottom = next->border_after(out.height);
    out.left = next->border_before(out.width);
    out.right = next->border_after(out.width);
  }
  return out;
}

Step make_step(const PackedLayer& packed, const Tensor& in, const Tensor& out) {
  const Layer& layer = packed.layer;
  Step step{};
  step.kind = layer.kind;
  step.stride = layer.stride;
  if (layer.kernel() == 3) {
    step.pad_top = layer.border_before(in.height);
    step.pad_left = layer.border_before(in.width);
  }
  step.in = in;
  step.out = out;
  step.maximum = packed.maximum;
  step.ceiling = packed.ceiling;
  return step;
}

// Runs the depthwise step at the plan's end together with the pointwise one behind it, if that pays.
bool try_pair(const KernelSet& kernels, PlannedStep& planned, const Step& pointwise,
              const void* packed) {
  if (kernels.run_pair == nullptr || planned.is_pair || planned.step.kind != Kind::kDepthwise) {
    return false;
  }
  const int units = kernels.pair_units(planned.step, pointwise);
  if (units == 0) return false;
  planned = {planned.step, planned.packed, units, true, pointwise, packed};
  return true;
}

std::vector<PlannedStep> make_steps(const KernelSet& kernels,
                                    const std::vector<PackedLayer>& layers, int height, int width) {
  std::vector<PlannedStep> steps;
  Tensor in{};
  in.channels = layers.front().layer.in_channels;
  in.height = height;
  in.width = width;
  for (std::size_t k = 0; k < layers.size(); ++k) {
    const PackedLayer& packed = layers[k];
    const Layer* next = k + 1 < layers.size() ? &layers[k + 1].layer : nullptr;
    const Tensor out = output_of(packed.layer, in, next);
    Step step = make_step(packed, in, out);
    if (packed.layer.kind == Kind::kPool) {
      const std::int64_t cells = std::int64_t{in.height} * in.width;
      if (kernels.precision == Precision::kInt8 && cells > kMaxPoolCells) too_large(height, width);
      step.multiplier = static_cast<float>(packed.input_scale /
                                           (packed.output_scale * static_cast<double>(cells)));
    }
    const double values = static_cast<double>(out.channels) * out.height * out.width;
    if (values > static_cast<double>(kMaxTensorBytes) ||
        kernels.tensor_bytes(out) > kMaxTensorBytes) {
      too_large(height, width);
    }
    if (steps.empty() || !try_pair(kernels, steps.back(), step, packed.packed)) {
      steps.push_back({step, packed.packed, kernels.units(step)});
    }
    in = out;
  }
  return steps;
}

}  // namespace

Plan make_plan(const KernelSet& kernels, const std::vector<PackedLayer>& layers, int resolution,
               int height, int width) {
  check_size(layers, resolution, height, width);
  Plan plan{};
  plan.height = height;
  plan.width = width;
  plan.steps = make_steps(kernels, layers, height, width);
  for (std::size_t k = 0; k < plan.steps.size(); ++k) {
    const PlannedStep& planned = plan.steps[k];
    if (k + 1 < plan.steps.size()) {
      std::size_t& bytes = plan.activation_bytes[k % 2];
      bytes = std::max(bytes, kernels.tensor_bytes(planned.last().out));
    }
    const std::size_t scratch = planned.is_pair
                                    ? kernels.pair_scratch_bytes(planned.step, planned.second)
                                    : kernels.scratch_bytes(planned.step);
    plan.scratch_bytes = std::max(plan.scratch_bytes, scratch);
  }
  return plan;
}

}  // namespace lucid
