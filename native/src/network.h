// The records of a network file, checked: what lucid.network checks in Python, the proof that no
// accumulator overflows included.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "container.h"
#include "kernels.h"

namespace lucid {

// The structure of a layer, for images of any size.
struct Layer {
  std::string name;
  Kind kind;
  int in_channels;
  int out_channels;
  int stride;
  bool same_padding;  // else symmetric
  bool relu6;

  int kernel() const { return kind == Kind::kStem || kind == Kind::kDepthwise ? 3 : 1; }
  // Pixels out for pixels in, along one axis.
  int output_side(int side) const;
  // Pixels outside the image that the windows see before and after it, along one axis of `side`.
  int border_before(int side) const;
  int border_after(int side) const;
  // Of one image of so many output pixels.
  std::int64_t multiply_adds(std::int64_t pixels) const;
};

// What the kernels need of a layer, or of a part of its outputs, beside its structure.
struct LayerValues {
  int begin = 0;  // the part
  int end = 0;
  // Empty, or as long as kernels.h says.
  std::vector<std::int8_t> weight_i8;
  std::vector<std::int32_t> bias_i32;
  std::vector<float> multiplier;
  std::vector<float> weight_f32;
  std::vector<float> bias_f32;
  std::vector<float> outside;  // of the stem
  int maximum = 255;
  float ceiling = 0;
  // Of a pool: the output is input_scale / output_scale times the mean of the input.
  double input_scale = 1;
  double output_scale = 1;

  Weights weights(const Layer& layer) const;
  // Become those of a depthwise layer that gives what it sees.
  void set_copy(int channels);
};

// A network file. All functions throw Error(kFile) or Error(kNetwork).
class NetworkFile {
 public:
  // Reads the header; checks everything but the tensors' values.
  explicit NetworkFile(Source& source);

  bool is_int8() const { return is_int8_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const std::vector<std::string>& class_names() const { return class_names_; }
  int resolution() const { return resolution_; }
  // The JSON object that describes the network.
  const std::string& text() const { return container_.text(); }

  // Reads and checks the next layer, or the next part of its outputs; each is read once, from the
  // first to the last. Memory that the values have from another is used again.
  void next(LayerValues& values);

 private:
  void parse_layers(const Json& list);
  void parse_preprocessing(const Json& values);
  void check_chain();
  std::vector<TensorType> tensors_of(const Layer& layer) const;
  void read_int8(const Layer& layer, const TensorType* tensors, LayerValues& values);
  void read_float(const Layer& layer, const TensorType* tensors, LayerValues& values);
  void fold_normalisation(const Layer& stem, LayerValues& values) const;
  template <class Value>
  void read(const TensorType& tensor, const LayerValues& part, std::vector<Value>& values) const;
  float read_scale(const TensorType& tensor) const;

  Container container_;
  bool is_int8_ = false;
  std::vector<Layer> layers_;
  std::vector<std::string> class_names_;
  int resolution_ = 0;
  std::vector<double> mean_;
  std::vector<double> std_;
  std::vector<TensorType> tensors_;  // of all layers
  std::size_t next_ = 0;             // layer
  std::size_t next_tensor_ = 0;      // its first
  int next_output_ = 0;
  float output_scale_ = 1;  // of the layer, or of the one before
};

}  // namespace lucid
