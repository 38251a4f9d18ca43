// A kernel set: the functions that execute a network's layers on one instruction set, in one
// precision. The plan (plan.h) knows only this interface; how a set lays out activations and weights
// in memory is its own affair, and each kernel file begins with saying so.

#pragma once

#include <cstddef>
#include <cstdint>

namespace lucid {

enum class Precision : std::uint8_t { kInt8, kFloat32, kBfloat16, kFloat32Split };

enum class Kind : std::uint8_t { kStem, kDepthwise, kPointwise, kPool, kDense };

// The width of the widest panel of any set: parts are whole panels.
constexpr int kPartOutputs = 128;

// A layer's weights as the network file has them. Convolutions are (out, in, 3, 3) for the stem,
// (channels, 1, 3, 3) depthwise, (out, in) pointwise and dense. The pool has none.
struct Weights {
  Kind kind;
  int in_channels;
  int out_channels;
  // The outputs that the following are of: all, but of a pointwise or dense layer perhaps a part,
  // from a multiple of kPartOutputs to the next or the end.
  int begin;
  int end;
  // int8 networks: the output is the accumulator, as float, times the channel's multiplier.
  const std::int8_t* weight_i8;
  const std::int32_t* bias_i32;  // (end - begin,)
  const float* multiplier;       // (end - begin,)
  // float networks; the stem's are for bytes: normalisation is folded in.
  const float* weight_f32;
  const float* bias_f32;  // (end - begin,)
  // The stem's value of a pixel outside the image, for each input channel. int8: a whole number.
  const float* outside;
};

// The values between two layers: channels of height x width, and how many zeros the window of the
// layer that reads them sees beyond each edge. A set that stores this border writes it with the rest.
struct Tensor {
  int channels;
  int height;
  int width;
  int top;
  int bottom;
  int left;
  int right;
};

// One layer for images of one size.
struct Step {
  Kind kind;
  int stride;      // 1 or 2
  int pad_top;     // pixels that the window sees before the first row and column; the plan
  int pad_left;    // has derived them from the network's padding
  Tensor in;       // the stem's: the image, bytes (height, width, channels), no border
  Tensor out;      // the classifier's: float32 logits (channels,); the pool's: 1 x 1
  int maximum;     // int8: outputs are clamped to 0 .. maximum
  float ceiling;   // float: outputs are clamped to 0 .. ceiling, which is 6 or infinity
  float multiplier;  // int8 pool: of the sum of a channel. Float pool: 1 / (height * width)
};

// The functions are pure: no state but their arguments, so that any number of threads may run them.
// The byte sizes of one tensor and of one layer's packed weights fit int, or the network is refused.
// Buffers are 64-byte aligned and hold anything, left by another layer or another image size; but
// the image and the logits are the caller's: of any alignment, and not a byte longer than they are.
struct KernelSet {
  const char* isa;         // as LUCID_ISA spells it
  Precision precision;
  std::uint64_t features;  // what the CPU must have, bits of cpu.h

  // Bytes of an activation tensor in this set's layout, its border included.
  std::size_t (*tensor_bytes)(const Tensor&);

  // Weights in this set's layout: made once, when a network is loaded; not of the pool. The size
  // follows from kind and channels alone; the rest may still be missing when it is asked for. The
  // memory is zeroed. Parts are packed in order, so that each is still in the cache when it is.
  std::size_t (*packed_bytes)(const Weights&);
  void (*pack)(const Weights&, void* packed);

  // Bytes of scratch memory that one thread needs for a step.
  std::size_t (*scratch_bytes)(const Step&);

  // A step is divided into units that may run in any order and on any thread: rows, tiles or blocks
  // of channels, as suits the layer. The result does not depend on the division.
  int (*units)(const Step&);
  void (*run)(const Step&, const void* packed, const void* in, void* out, void* scratch, int begin,
              int end);

  // A depthwise layer and the pointwise one behind it in one go, so that what is between them stays
  // in the cache: as the three functions above. For sets that can; pair_units() is 0 where it would
  // not pay.
  std::size_t (*pair_scratch_bytes)(const Step& depthwise, const Step& pointwise) = nullptr;
  int (*pair_units)(const Step& depthwise, const Step& pointwise) = nullptr;
  void (*run_pair)(const Step& depthwise, const Step& pointwise, const void* depthwise_packed,
                   const void* pointwise_packed, const void* in, void* out, void* scratch, int begin,
                   int end) = nullptr;
};

}  // namespace lucid
