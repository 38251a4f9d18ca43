// Kernels in plain C++ for every CPU, from which those of one precision are made. Only files without
// flags of their own may include it (kernels.cmake).
//
// Activations are (height, width, channels) without a border. Weights are packed as (taps, in, out),
// out fastest, so that the inner loops run over neighbours in memory and compilers use what vectors
// there are. A unit is a row of the output; of the pool and the classifier, a block of channels.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../kernels.h"

namespace lucid {

// `Type` says what a precision computes with:
//   Value, Weight, Sum, Pixel   activations, weights, accumulators, and what the image's bytes become
//   Channel                     what a channel has beside its weights: bias, scale
//   weight(Weights, index), channel(Weights, index), outside(Weights, index)
//   start(Channel) -> Sum       an accumulator before the first product
//   value(Sum, Channel, Step) -> Value, logit(Sum, Channel) -> float, mean(Sum, Step) -> Value
template <class Type>
class ScalarKernels {
  using Value = typename Type::Value;
  using Weight = typename Type::Weight;
  using Sum = typename Type::Sum;
  using Channel = typename Type::Channel;

  static constexpr int kBlock = 64;      // channels of a unit of pool and classifier
  static constexpr int kTaps = 9;        // of a window
  static constexpr std::size_t kLine = 64;

  static std::size_t size(int value) { return static_cast<std::size_t>(value); }
  static std::size_t line(std::size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

  static int taps(Kind kind) { return kind == Kind::kStem || kind == Kind::kDepthwise ? kTaps : 1; }
  static int inputs(Kind kind, int in_channels) { return kind == Kind::kDepthwise ? 1 : in_channels; }

  // Where the parts of packed weights begin: channels, the stem's outside, weights.
  struct Parts {
    std::size_t outside;
    std::size_t weights;
    std::size_t end;

    Parts(Kind kind, int in_channels, int out_channels) {
      outside = line(size(out_channels) * sizeof(Channel));
      weights = outside + (kind == Kind::kStem ? line(size(in_channels) * sizeof(Sum)) : 0);
      end = weights + size(taps(kind)) * size(inputs(kind, in_channels)) * size(out_channels) *
                          sizeof(Weight);
    }
  };

 public:
  static std::size_t tensor_bytes(const Tensor& tensor) {
    return size(tensor.channels) * size(tensor.height) * size(tensor.width) * sizeof(Value);
  }

  static std::size_t packed_bytes(const Weights& weights) {
    if (weights.kind == Kind::kPool) return 0;
    return Parts(weights.kind, weights.in_channels, weights.out_channels).end;
  }

  static void pack(const Weights& weights, void* packed) {
    const Parts parts(weights.kind, weights.in_channels, weights.out_channels);
    char* const base = static_cast<char*>(packed);
    auto* const channels = reinterpret_cast<Channel*>(base);
    auto* const values = reinterpret_cast<Weight*>(base + parts.weights);
    const int in = inputs(weights.kind, weights.in_channels), out = weights.out_channels;
    const int window = taps(weights.kind);
    for (int o = weights.begin; o < weights.end; ++o) {
      const int given = o - weights.begin;
      channels[o] = Type::channel(weights, size(given));
      for (int i = 0; i < in; ++i) {
        for (int tap = 0; tap < window; ++tap) {
          values[(size(tap) * size(in) + size(i)) * size(out) + size(o)] =
              Type::weight(weights, (size(given) * size(in) + size(i)) * size(window) + size(tap));
        }
      }
    }
    if (weights.kind == Kind::kStem) {
      auto* const outside = reinterpret_cast<Sum*>(base + parts.outside);
      for (int i = 0; i < in; ++i) outside[i] = Type::outside(weights, size(i));
    }
  }

  static std::size_t scratch_bytes(const Step& step) {
    return size(step.out.channels) * sizeof(Sum);
  }

  static int units(const Step& step) {
    const bool rows = step.kind != Kind::kPool && step.kind != Kind::kDense;
    return rows ? step.out.height : (step.out.channels + kBlock - 1) / kBlock;
  }

  static void run(const Step& step, const void* packed, const void* in, void* out, void* scratch,
                  int begin, int end) {
    auto* const sums = static_cast<Sum*>(scratch);
    for (int unit = begin; unit < end; ++unit) {
      switch (step.kind) {
        case Kind::kStem:
          stem_row(step, packed, static_cast<const std::uint8_t*>(in), out, sums, unit);
          break;
        case Kind::kDepthwise:
          depthwise_row(step, packed, static_cast<const Value*>(in), out, sums, unit);
          break;
        case Kind::kPointwise:
          pointwise_row(step, packed, static_cast<const Value*>(in), out, sums, unit);
          break;
        case Kind::kPool:
          pool_block(step, static_cast<const Value*>(in), out, sums, unit * kBlock);
          break;
        case Kind::kDense:
          dense_block(step, packed, static_cast<const Value*>(in), static_cast<float*>(out), sums,
                      unit * kBlock);
          break;
      }
    }
  }

 private:
  static const Channel* channels_of(const void* packed) {
    return static_cast<const Channel*>(packed);
  }

  static const char* part(const void* packed, std::size_t offset) {
    return static_cast<const char*>(packed) + offset;
  }

  static void start(const Channel* channels, Sum* sums, int count) {
    for (int c = 0; c < count; ++c) sums[c] = Type::start(channels[c]);
  }

  // One input value goes into the sums of all output channels.
  static void add(Sum value, const Weight* weights, Sum* sums, int count) {
    for (int c = 0; c < count; ++c) sums[c] += value * Type::wide(weights[c]);
  }

  static void finish(const Step& step, const Channel* channels, const Sum* sums, Value* out) {
    for (int c = 0; c < step.out.channels; ++c) out[c] = Type::value(sums[c], channels[c], step);
  }

  static Value* pixel(const Step& step, void* out, int y, int x) {
    const std::size_t place = size(y) * size(step.out.width) + size(x);
    return static_cast<Value*>(out) + place * size(step.out.channels);
  }

  // Calls visit(tap, value at the pixel that the tap sees, or nullptr outside) for a window.
  template <class Item, class Visit>
  static void visit_window(const Step& step, const Item* in, int y, int x, Visit visit) {
    for (int tap = 0; tap < kTaps; ++tap) {
      const int row = y * step.stride - step.pad_top + tap / 3;
      const int column = x * step.stride - step.pad_left + tap % 3;
      const bool inside =
          row >= 0 && row < step.in.height && column >= 0 && column < step.in.width;
      const std::size_t place = inside ? size(row) * size(step.in.width) + size(column) : 0;
      visit(tap, inside ? in + place * size(step.in.channels) : nullptr);
    }
  }

  static void stem_row(const Step& step, const void* packed, const std::uint8_t* image, void* out,
                       Sum* sums, int y) {
    const int in = step.in.channels, count = step.out.channels;
    const Parts parts(step.kind, in, count);
    const auto* outside = reinterpret_cast<const Sum*>(part(packed, parts.outside));
    const auto* weights = reinterpret_cast<const Weight*>(part(packed, parts.weights));
    for (int x = 0; x < step.out.width; ++x) {
      start(channels_of(packed), sums, count);
      visit_window(step, image, y, x, [&](int tap, const std::uint8_t* pixels) {
        const Weight* const row = weights + size(tap) * size(in) * size(count);
        for (int i = 0; i < in; ++i) {
          const Sum value = pixels ? static_cast<Sum>(pixels[i]) : outside[i];
          add(value, row + size(i) * size(count), sums, count);
        }
      });
      finish(step, channels_of(packed), sums, pixel(step, out, y, x));
    }
  }

  static void depthwise_row(const Step& step, const void* packed, const Value* in, void* out,
                            Sum* sums, int y) {
    const int count = step.out.channels;
    const Parts parts(step.kind, count, count);
    const auto* weights = reinterpret_cast<const Weight*>(part(packed, parts.weights));
    for (int x = 0; x < step.out.width; ++x) {
      start(channels_of(packed), sums, count);
      visit_window(step, in, y, x, [&](int tap, const Value* values) {
        if (values == nullptr) return;
        const Weight* const row = weights + size(tap) * size(count);
        for (int c = 0; c < count; ++c) sums[c] += Type::wide(values[c]) * Type::wide(row[c]);
      });
      finish(step, channels_of(packed), sums, pixel(step, out, y, x));
    }
  }

  static void pointwise_row(const Step& step, const void* packed, const Value* in, void* out,
                            Sum* sums, int y) {
    const int count = step.out.channels;
    const Parts parts(step.kind, step.in.channels, count);
    const auto* weights = reinterpret_cast<const Weight*>(part(packed, parts.weights));
    for (int x = 0; x < step.out.width; ++x) {
      start(channels_of(packed), sums, count);
      const std::size_t place = size(y) * size(step.in.width) + size(x);
      const Value* const values = in + place * size(step.in.channels);
      for (int i = 0; i < step.in.channels; ++i) {
        add(Type::wide(values[i]), weights + size(i) * size(count), sums, count);
      }
      finish(step, channels_of(packed), sums, pixel(step, out, y, x));
    }
  }

  static int block_size(const Step& step, int first) {
    const int left = step.out.channels - first;
    return left < kBlock ? left : kBlock;
  }

  static void pool_block(const Step& step, const Value* in, void* out, Sum* sums, int first) {
    const int count = block_size(step, first);
    for (int c = 0; c < count; ++c) sums[c] = 0;
    const std::size_t pixels = size(step.in.height) * size(step.in.width);
    for (std::size_t k = 0; k < pixels; ++k) {
      const Value* const values = in + k * size(step.in.channels) + first;
      for (int c = 0; c < count; ++c) sums[c] += Type::wide(values[c]);
    }
    for (int c = 0; c < count; ++c) {
      static_cast<Value*>(out)[first + c] = Type::mean(sums[c], step);
    }
  }

  static void dense_block(const Step& step, const void* packed, const Value* in, float* logits,
                          Sum* sums, int first) {
    const int count = block_size(step, first), classes = step.out.channels;
    const Parts parts(step.kind, step.in.channels, classes);
    const auto* weights = reinterpret_cast<const Weight*>(part(packed, parts.weights)) + first;
    const Channel* const channels = channels_of(packed) + first;
    start(channels, sums, count);
    for (int i = 0; i < step.in.channels; ++i) {
      add(Type::wide(in[i]), weights + size(i) * size(classes), sums, count);
    }
    for (int c = 0; c < count; ++c) logits[first + c] = Type::logit(sums[c], channels[c]);
  }
};

}  // namespace lucid
