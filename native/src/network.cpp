#include "network.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <string_view>
#include <system_error>

#include "error.h"

#if !defined(__cpp_lib_to_chars)
#include <locale>
#include <sstream>
#endif

namespace lucid {
namespace {

constexpr std::size_t kMaxLayers = 1000;
constexpr int kMaxChannels = 1'000'000;
constexpr int kMaxResolution = 8192;
constexpr float kSmallestNormal = std::numeric_limits<float>::min();

// As in lucid/network/integer.py.
constexpr int kMaxActivation = 255;
constexpr double kMaxPoolCells = 1 << 23;
constexpr double kMaxRequantised = 1 << 30;
constexpr double kMaxLogit = 0x1p127;

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorKind::kFile, message); }
[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorKind::kNetwork, message); }

struct KindName {
  const char* name;
  Kind kind;
};

constexpr KindName kKinds[] = {{"stem", Kind::kStem},
                               {"depthwise", Kind::kDepthwise},
                               {"pointwise", Kind::kPointwise},
                               {"pool", Kind::kPool},
                               {"dense", Kind::kDense}};

const Json& field(const Json& object, const char* name, Json::Type type, const std::string& where) {
  const Json* value = object.find(name);
  if (value == nullptr || value->type != type) {
    fail(where + name + (value == nullptr ? ": is missing" : ": is of another type"));
  }
  return *value;
}

// Checks that an object has so many fields; each of them has been or will be asked for by name.
void check_fields(const Json& object, std::size_t count, const std::string& where) {
  if (object.items.size() != count) {
    fail(where + "expected " + std::to_string(count) + " fields, got " +
         std::to_string(object.items.size()));
  }
}

int whole_number(const Json& value, int low, int high, const std::string& where) {
  int number = low - 1;
  if (value.type == Json::Type::kNumber && value.whole && value.text.size() <= 9) {
    std::from_chars(value.text.data(), value.text.data() + value.text.size(), number);
  }
  if (number < low || number > high) {
    fail(where + ": must be a whole number from " + std::to_string(low) + " to " +
         std::to_string(high) + ", got " + in_quotes(value.text));
  }
  return number;
}

// NaN where it is too large.
double to_double(std::string_view text) {
  double value = std::numeric_limits<double>::quiet_NaN();
#if defined(__cpp_lib_to_chars)
  const char* const end = text.data() + text.size();
  if (std::from_chars(text.data(), end, value).ec == std::errc()) return value;
#else
  std::istringstream stream{std::string(text)};
  stream.imbue(std::locale::classic());  // a point is a point in every language
  if (stream >> value) return value;
#endif
  return std::numeric_limits<double>::quiet_NaN();
}

// Numbers within limits, one a channel.
std::vector<double> numbers(const Json& list, double low, double high, const std::string& where) {
  std::vector<double> found;
  for (const Json& item : list.items) {
    double value = std::numeric_limits<double>::quiet_NaN();
    if (item.type == Json::Type::kNumber) value = to_double(item.text);
    if (!(value >= low && value <= high)) fail(where + ": a number is missing or out of range");
    found.push_back(value);
  }
  return found;
}

bool is_name(const std::string& name) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.';
  };
  return !name.empty() && name.size() <= 100 && std::all_of(name.begin(), name.end(), fits);
}

Layer parse_layer(const Json& entry, const std::string& where) {
  if (entry.type != Json::Type::kObject) fail(where + "expected an object");
  check_fields(entry, 7, where);
  const auto text = [&](const char* name) {
    return field(entry, name, Json::Type::kText, where).text;
  };
  const auto number = [&](const char* name, int high) {
    return whole_number(field(entry, name, Json::Type::kNumber, where), 1, high, where + name);
  };
  Layer layer{};
  layer.name = text("name");
  if (!is_name(layer.name)) fail(where + "name: must be letters, digits, _ and .");
  const std::string_view kind = text("kind");
  const auto known = std::find_if(std::begin(kKinds), std::end(kKinds),
                                  [&](const KindName& row) { return kind == row.name; });
  if (known == std::end(kKinds)) fail(where + "kind: unknown, " + in_quotes(kind));
  layer.kind = known->kind;
  const std::string_view padding = text("padding");
  if (padding != "symmetric" && padding != "same") {
    fail(where + "padding: must be symmetric or same, got " + in_quotes(padding));
  }
  layer.same_padding = padding == "same";
  layer.in_channels = number("in_channels", kMaxChannels);
  layer.out_channels = number("out_channels", kMaxChannels);
  layer.stride = number("stride", layer.kernel() > 1 ? 2 : 1);
  if ((layer.kind == Kind::kDepthwise || layer.kind == Kind::kPool) &&
      layer.in_channels != layer.out_channels) {
    fail(where + "a " + std::string(kind) + " layer has as many channels out as in");
  }
  if (layer.kind == Kind::kPool || layer.kind == Kind::kDense) {
    field(entry, "activation", Json::Type::kNull, where);
  } else {
    const std::string_view activation = text("activation");
    if (activation != "relu" && activation != "relu6") {
      fail(where + "activation: must be relu or relu6, got " + in_quotes(activation));
    }
    layer.relu6 = activation == "relu6";
  }
  return layer;
}

std::vector<std::int64_t> weight_shape(const Layer& layer) {
  if (layer.kind == Kind::kDense) return {layer.out_channels, layer.in_channels};
  const int seen = layer.kind == Kind::kDepthwise ? 1 : layer.in_channels;
  return {layer.out_channels, seen, layer.kernel(), layer.kernel()};
}

bool is_scale(float scale) {
  return scale >= kSmallestNormal && scale <= std::numeric_limits<float>::max();
}

void check_finite(const std::vector<float>& values, const std::string& name) {
  constexpr std::uint32_t kExponent = 0x7f800000;
  std::uint32_t found = 0;  // no branches: compilers make vector code of it
  for (const float value : values) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    found |= static_cast<std::uint32_t>((bits & kExponent) == kExponent);
  }
  if (found != 0) refuse(name + ": holds values that are not finite, or no float32");
}

// What the sums of some of a channel's products lie between, with or without the bias, whatever the
// input.
struct Bounds {
  std::int64_t low;
  std::int64_t high;
  int least;  // of the weights

  bool fit_int32() const {
    return low >= std::numeric_limits<std::int32_t>::min() &&
           high <= std::numeric_limits<std::int32_t>::max();
  }
  double magnitude() const { return static_cast<double>(std::max(high, -low)); }
};

Bounds accumulator_bounds(const std::int8_t* weight, std::size_t count, std::int32_t bias) {
  // Blocks whose sums fit 16 bits, and no branches: compilers make vector code of it.
  constexpr std::size_t kBlock = 255;
  std::int64_t sum = 0, magnitude = 0;
  int least = 0;
  for (std::size_t start = 0; start < count; start += kBlock) {
    const std::size_t end = std::min(count, start + kBlock);
    std::int16_t block_sum = 0, block_magnitude = 0, block_least = 0;
    for (std::size_t k = start; k < end; ++k) {
      const std::int16_t value = weight[k];
      block_sum = static_cast<std::int16_t>(block_sum + value);
      block_magnitude = static_cast<std::int16_t>(block_magnitude + (value < 0 ? -value : value));
      block_least = value < block_least ? value : block_least;
    }
    sum += block_sum;
    magnitude += block_magnitude;
    least = std::min<int>(least, block_least);
  }
  return {(sum - magnitude) / 2 * kMaxActivation + std::min(bias, 0),
          (sum + magnitude) / 2 * kMaxActivation + std::max(bias, 0), least};
}

}  // namespace

int Layer::output_side(int side) const {
  return kind == Kind::kPool ? 1 : (side + stride - 1) / stride;
}

int Layer::border_before(int side) const {
  if (!same_padding) return kernel() / 2;
  return ((output_side(side) - 1) * stride + kernel() - side) / 2;
}

int Layer::border_after(int side) const {
  return (output_side(side) - 1) * stride + kernel() - side - border_before(side);
}

std::int64_t Layer::multiply_adds(std::int64_t pixels) const {
  if (kind == Kind::kPool) return 0;
  std::int64_t product = pixels;
  for (const std::int64_t side : weight_shape(*this)) product *= side;
  return product;
}

Weights LayerValues::weights(const Layer& layer) const {
  Weights weights{};
  weights.kind = layer.kind;
  weights.in_channels = layer.in_channels;
  weights.out_channels = layer.out_channels;
  weights.begin = begin;
  weights.end = end;
  weights.weight_i8 = weight_i8.data();
  weights.bias_i32 = bias_i32.data();
  weights.multiplier = multiplier.data();
  weights.weight_f32 = weight_f32.data();
  weights.bias_f32 = bias_f32.data();
  weights.outside = outside.data();
  return weights;
}

void LayerValues::set_copy(int channels) {
  begin = 0;
  end = channels;
  const auto count = static_cast<std::size_t>(channels);
  constexpr std::size_t kTaps = 9, kMiddle = 4;
  weight_i8.assign(count * kTaps, 0);
  weight_f32.assign(count * kTaps, 0.0f);
  for (std::size_t tap = kMiddle; tap < count * kTaps; tap += kTaps) {
    weight_i8[tap] = 1;
    weight_f32[tap] = 1.0f;
  }
  bias_i32.assign(count, 0);
  multiplier.assign(count, 1.0f);
  bias_f32.assign(count, 0.0f);
  outside.clear();
  maximum = kMaxActivation;
  ceiling = std::numeric_limits<float>::infinity();
}

NetworkFile::NetworkFile(Source& source) : container_(source) {
  std::string text = container_.text();
  const Json values = parse_json(text, "lucid");
  if (values.type != Json::Type::kObject) fail("lucid: expected a JSON object");
  check_fields(values, 6, "lucid: ");
  const std::string_view precision = field(values, "precision", Json::Type::kText, "").text;
  if (precision != "int8" && precision != "float32") {
    fail("precision: must be float32 or int8, got " + in_quotes(precision));
  }
  is_int8_ = precision == "int8";
  parse_layers(field(values, "layers", Json::Type::kList, ""));
  for (const Json& name : field(values, "class_names", Json::Type::kList, "").items) {
    if (name.type != Json::Type::kText) fail("class_names: expected texts");
    class_names_.emplace_back(name.text);
  }
  parse_preprocessing(field(values, "preprocessing", Json::Type::kObject, ""));
  field(values, "metrics", Json::Type::kObject, "");
  field(values, "provenance", Json::Type::kObject, "");
  check_chain();
  for (const Layer& layer : layers_) {
    for (TensorType& tensor : tensors_of(layer)) tensors_.push_back(std::move(tensor));
  }
  container_.check(tensors_);
}

void NetworkFile::parse_layers(const Json& list) {
  if (list.items.size() > kMaxLayers) {
    fail("layers: " + std::to_string(list.items.size()) + " are too many");
  }
  for (std::size_t k = 0; k < list.items.size(); ++k) {
    layers_.push_back(parse_layer(list.items[k], "layers[" + std::to_string(k) + "]: "));
  }
}

void NetworkFile::parse_preprocessing(const Json& values) {
  const std::string where = "preprocessing: ";
  resolution_ = whole_number(field(values, "resolution", Json::Type::kNumber, where), 1,
                             kMaxResolution, where + "resolution");
  const auto channels = [&](const char* name, double low, double high) {
    if (values.find(name) == nullptr) return std::vector<double>();
    return numbers(field(values, name, Json::Type::kList, where), low, high, where + name);
  };
  mean_ = channels("mean", 0, 1);
  std_ = channels("std", 1e-6, 1e3);
}

void NetworkFile::check_chain() {
  std::vector<Kind> kinds = {Kind::kStem};
  for (std::size_t k = 3; k + 1 < layers_.size(); k += 2) {
    kinds.insert(kinds.end(), {Kind::kDepthwise, Kind::kPointwise});
  }
  if (layers_.size() % 2 == 0) kinds.push_back(Kind::kPointwise);
  kinds.insert(kinds.end(), {Kind::kPool, Kind::kDense});
  const auto same_kind = [](const Layer& layer, Kind kind) { return layer.kind == kind; };
  if (!std::equal(layers_.begin(), layers_.end(), kinds.begin(), kinds.end(), same_kind)) {
    refuse(
        "layers: expected stem, pairs of depthwise and pointwise, perhaps one more pointwise, "
        "pool and dense");
  }
  std::set<std::string> names;
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    const Layer& layer = layers_[k];
    if (!names.insert(layer.name).second) {
      refuse("layers: the name " + layer.name + " stands there twice");
    }
    if (k > 0 && layer.in_channels != layers_[k - 1].out_channels) {
      refuse(layer.name + ": takes " + std::to_string(layer.in_channels) +
             " channels, the layer before gives " + std::to_string(layers_[k - 1].out_channels));
    }
  }
  if (class_names_.size() != static_cast<std::size_t>(layers_.back().out_channels)) {
    fail("class_names: " + std::to_string(class_names_.size()) + " names for " +
         std::to_string(layers_.back().out_channels) + " classes");
  }
  const auto channels = static_cast<std::size_t>(layers_.front().in_channels);
  for (std::vector<double>* values : {&mean_, &std_}) {
    if (values->empty() && channels <= 3) values->assign(channels, 0.5);  // left out, as in Python
  }
  if (mean_.size() != channels || std_.size() != channels) {
    fail("preprocessing: mean and std must hold " + std::to_string(channels) +
         " numbers, one a channel of the image");
  }
}

std::vector<TensorType> NetworkFile::tensors_of(const Layer& layer) const {
  std::vector<TensorType> found;
  const std::vector<std::int64_t> per_channel = {layer.out_channels};
  if (layer.kind != Kind::kPool) {
    found.push_back({layer.name + ".weight", is_int8_ ? "I8" : "F32", is_int8_ ? 1u : 4u,
                     weight_shape(layer)});
    found.push_back({layer.name + ".bias", is_int8_ ? "I32" : "F32", 4, per_channel});
    if (is_int8_) found.push_back({layer.name + ".weight_scale", "F32", 4, per_channel});
  }
  if (is_int8_ && layer.kind != Kind::kDense) {
    found.push_back({layer.name + ".output_scale", "F32", 4, {}});
  }
  return found;
}

void NetworkFile::next(LayerValues& values) {
  const Layer& layer = layers_[next_];
  const TensorType* const tensors = tensors_.data() + next_tensor_;
  const bool by_parts = layer.kind == Kind::kPointwise || layer.kind == Kind::kDense;
  values.begin = next_output_;
  values.end = by_parts ? std::min(layer.out_channels, next_output_ + kPartOutputs)
                        : layer.out_channels;
  values.outside.clear();
  if (is_int8_) {
    read_int8(layer, tensors, values);
  } else {
    read_float(layer, tensors, values);
  }
  next_output_ = values.end;
  if (next_output_ < layer.out_channels) return;
  next_output_ = 0;
  ++next_;
  next_tensor_ += tensors_of(layer).size();
}

void NetworkFile::read_int8(const Layer& layer, const TensorType* tensors, LayerValues& values) {
  if (values.begin == 0) {
    const TensorType* const own_scale = tensors + (layer.kind == Kind::kPool ? 0 : 3);
    values.input_scale = output_scale_;
    output_scale_ = layer.kind == Kind::kDense ? 1.0f : read_scale(*own_scale);
    values.output_scale = output_scale_;
  }
  const double input_scale = values.input_scale;
  const float output_scale = output_scale_;
  if (layer.kind == Kind::kPool) {
    const double ratio = input_scale / output_scale;
    if (!(kMaxActivation * ratio < kMaxRequantised) ||
        ratio / kMaxPoolCells < static_cast<double>(kSmallestNormal)) {
      refuse(layer.name + ": its scales do not fit one another");
    }
    return;
  }
  const auto& weights = values.weight_i8;
  auto& scale = values.multiplier;  // turned into multipliers one by one
  read(tensors[0], values, values.weight_i8);
  read(tensors[1], values, values.bias_i32);
  read(tensors[2], values, scale);
  const double limit = layer.kind == Kind::kDense ? kMaxLogit : kMaxRequantised;
  const std::size_t taps = weights.size() / scale.size();
  const auto number_of = [&](std::size_t channel) {
    return std::to_string(static_cast<std::size_t>(values.begin) + channel);
  };
  for (std::size_t channel = 0; channel < scale.size(); ++channel) {
    if (!is_scale(scale[channel])) {
      refuse(tensors[2].name + ": must be finite, above 0 and not subnormal");
    }
    const Bounds bounds =
        accumulator_bounds(&weights[channel * taps], taps, values.bias_i32[channel]);
    if (bounds.least < -127) refuse(tensors[0].name + ": must be from -127 to 127, got -128");
    if (!bounds.fit_int32()) {
      refuse(layer.name + ": the accumulator of channel " + number_of(channel) +
             " could be from " + std::to_string(bounds.low) + " to " +
             std::to_string(bounds.high) + ", which int32 can't hold");
    }
    const double wanted = input_scale * static_cast<double>(scale[channel]) / output_scale;
    // A conversion to float of what is beyond it would be undefined.
    const bool fits = wanted <= static_cast<double>(std::numeric_limits<float>::max());
    const float multiplier = fits ? static_cast<float>(wanted) : 0.0f;
    if (multiplier < kSmallestNormal ||
        bounds.magnitude() * static_cast<double>(multiplier) >= limit) {
      refuse(layer.name + ": the multiplier of channel " + number_of(channel) +
             " gives results that are subnormal or too large; the scales do not fit one another");
    }
    scale[channel] = multiplier;
  }
  const double six = std::nearbyint(6 / static_cast<double>(output_scale));
  values.maximum =
      layer.relu6 ? static_cast<int>(std::min<double>(six, kMaxActivation)) : kMaxActivation;
  if (layer.kind == Kind::kStem) {
    for (const double mean : mean_) {
      values.outside.push_back(static_cast<float>(std::nearbyint(255 * mean)));
    }
  }
}

void NetworkFile::read_float(const Layer& layer, const TensorType* tensors, LayerValues& values) {
  values.ceiling = layer.relu6 ? 6.0f : std::numeric_limits<float>::infinity();
  if (layer.kind == Kind::kPool) return;
  read(tensors[0], values, values.weight_f32);
  read(tensors[1], values, values.bias_f32);
  check_finite(values.weight_f32, tensors[0].name);
  check_finite(values.bias_f32, tensors[1].name);
  if (layer.kind == Kind::kStem) {
    fold_normalisation(layer, values);
    check_finite(values.weight_f32, tensors[0].name);
    check_finite(values.bias_f32, tensors[1].name);
  }
}

// weight * (byte / 255 - mean) / std is weight / (255 * std) * (byte - 255 * mean). The bias takes
// up the mean with the weights as they are once rounded, so that nothing seen gives nothing.
void NetworkFile::fold_normalisation(const Layer& stem, LayerValues& values) const {
  for (const double mean : mean_) values.outside.push_back(static_cast<float>(255 * mean));
  const auto inputs = static_cast<std::size_t>(stem.in_channels);
  const std::size_t taps = 9;
  for (std::size_t out = 0; out < values.bias_f32.size(); ++out) {
    double bias = values.bias_f32[out];
    for (std::size_t in = 0; in < inputs; ++in) {
      for (std::size_t tap = 0; tap < taps; ++tap) {
        float& weight = values.weight_f32[(out * inputs + in) * taps + tap];
        weight = static_cast<float>(static_cast<double>(weight) / (255 * std_[in]));
        bias -= static_cast<double>(weight) * static_cast<double>(values.outside[in]);
      }
    }
    values.bias_f32[out] = static_cast<float>(bias);
  }
}

// The values of the outputs that `part` is of.
template <class Value>
void NetworkFile::read(const TensorType& tensor, const LayerValues& part,
                       std::vector<Value>& values) const {
  const std::uint64_t output = tensor.bytes() / static_cast<std::uint64_t>(tensor.shape[0]);
  const auto outputs = static_cast<std::size_t>(part.end - part.begin);
  const std::size_t bytes = static_cast<std::size_t>(output) * outputs;
  values.resize(bytes / sizeof(Value));
  container_.read(tensor, output * static_cast<std::uint64_t>(part.begin), values.data(), bytes);
}

float NetworkFile::read_scale(const TensorType& tensor) const {
  float scale = 0;
  container_.read(tensor, 0, &scale, sizeof scale);
  if (!is_scale(scale)) refuse(tensor.name + ": must be finite, above 0 and not subnormal");
  return scale;
}

}  // namespace lucid
