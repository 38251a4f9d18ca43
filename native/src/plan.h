// How a network runs on images of one size: its steps, and the memory that they take.

#pragma once

#include <cstddef>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "network.h"

namespace lucid {

// A layer with its weights as a kernel set wants them.
struct PackedLayer {
  Layer layer;
  int maximum;
  float ceiling;
  double input_scale;  // of a pool, and
  double output_scale;
  const void* packed;
  std::size_t packed_bytes;
  bool is_copy;  // not of the network: see Engine::pack
};

// A layer, or a depthwise layer and the pointwise one behind it in one go.
struct PlannedStep {
  Step step;
  const void* packed;
  int units;
  bool is_pair = false;
  Step second = {};  // of a pair
  const void* second_packed = nullptr;

  const Step& last() const { return is_pair ? second : step; }
};

// Steps write to one of two activation buffers and read from the other, in turns: step k writes to
// buffer k % 2. The first reads the image, the last writes logits.
struct Plan {
  int height;
  int width;
  std::vector<PlannedStep> steps;
  std::size_t activation_bytes[2] = {0, 0};
  std::size_t scratch_bytes = 0;  // for each thread
};

// Throws Error(kImage) when an image of this size is too large, or so small that its last layers
// would see hardly more than what is outside of it: smaller than the network's total stride, where
// that is not more than `resolution`, which the network was made for.
Plan make_plan(const KernelSet& kernels, const std::vector<PackedLayer>& layers, int resolution,
               int height, int width);

}  // namespace lucid
