#include "container.h"

#include <algorithm>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "error.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are stored little-endian and read as they are"
#endif

namespace lucid {
namespace {

constexpr std::uint64_t kMaxFileBytes = std::uint64_t{4} << 30;
constexpr std::uint64_t kMaxHeaderBytes = 4 << 20;
constexpr char kFormat[] = "lucid-network";
constexpr char kVersion[] = "1";

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorKind::kFile, message); }

const std::string_view* text_of(const Json* value) {
  return value != nullptr && value->type == Json::Type::kText ? &value->text : nullptr;
}

void check_metadata(const Json* metadata) {
  const std::string_view* format = metadata ? text_of(metadata->find("format")) : nullptr;
  if (format == nullptr || *format != kFormat) {
    fail("a safetensors file of another program or kind: the format in its metadata is " +
         (format ? in_quotes(*format) : "none") + ", expected '" + kFormat + "'");
  }
  const std::string_view* version = text_of(metadata->find("version"));
  if (version == nullptr || *version != kVersion) {
    fail("version: expected '" + std::string(kVersion) + "', got " +
         (version ? in_quotes(*version) : "none") + "; a newer lucid may read it");
  }
  if (metadata->items.size() != 3 || text_of(metadata->find("lucid")) == nullptr) {
    fail("metadata: expected the texts 'format', 'version' and 'lucid'");
  }
}

// A number of a file as a whole number from 0; false when it is none, or too large to be right.
bool to_count(const Json& value, std::uint64_t& count) {
  if (value.type != Json::Type::kNumber || !value.whole || value.text.size() > 18) return false;
  if (value.text[0] == '-') return false;
  count = 0;
  for (const char digit : value.text) count = count * 10 + static_cast<std::uint64_t>(digit - '0');
  return true;
}

bool is_shape(const Json* value, const std::vector<std::int64_t>& shape) {
  if (value == nullptr || value->type != Json::Type::kList) return false;
  if (value->items.size() != shape.size()) return false;
  for (std::size_t k = 0; k < shape.size(); ++k) {
    std::uint64_t side = 0;
    if (!to_count(value->items[k], side) || side != static_cast<std::uint64_t>(shape[k])) {
      return false;
    }
  }
  return true;
}

std::string described(const TensorType& tensor) {
  std::string sides;
  for (const std::int64_t side : tensor.shape) {
    sides += (sides.empty() ? "" : ", ") + std::to_string(side);
  }
  return std::string(tensor.dtype) + " [" + sides + "]";
}

}  // namespace

std::uint64_t TensorType::bytes() const {
  std::uint64_t product = item_bytes;
  for (const std::int64_t side : shape) product *= static_cast<std::uint64_t>(side);
  return product;
}

Container::Container(Source& source) : source_(source) {
  const std::uint64_t size = source.size();
  if (size > kMaxFileBytes) {
    fail(std::to_string(size) + " bytes are too many; the limit is " +
         std::to_string(kMaxFileBytes));
  }
  std::uint64_t length = 0;
  if (size >= 8) source.read(0, &length, sizeof length);
  if (size < 10 || length < 2 || length > std::min(size - 8, kMaxHeaderBytes)) {
    fail("not a whole safetensors file: it announces a header of " + std::to_string(length) +
         " bytes (the limit is " + std::to_string(kMaxHeaderBytes) + ") and has " +
         std::to_string(size) + " bytes; it is truncated or of another format");
  }
  header_.resize(static_cast<std::size_t>(length));
  source.read(8, header_.data(), header_.size());
  layout_ = parse_json(header_, "header");
  if (layout_.type != Json::Type::kObject) fail("header: expected a JSON object");
  const Json* metadata = layout_.find("__metadata__");
  check_metadata(metadata);
  text_ = metadata->find("lucid")->text;
  data_start_ = 8 + length;
}

void Container::check(std::vector<TensorType>& expected) const {
  const std::size_t found_tensors = layout_.items.size() - 1;  // without the metadata
  if (found_tensors > expected.size()) {
    fail("the file holds " + std::to_string(found_tensors) + " tensors, its layers have " +
         std::to_string(expected.size()));
  }
  std::unordered_map<std::string_view, const Json*> entries;
  entries.reserve(layout_.items.size());
  for (const Json& entry : layout_.items) entries.emplace(entry.name, &entry);
  std::vector<std::tuple<std::uint64_t, std::uint64_t, const std::string*>> spans;
  spans.reserve(expected.size());
  for (TensorType& tensor : expected) {
    const auto found = entries.find(tensor.name);
    if (found == entries.end()) fail("tensor " + tensor.name + " is missing");
    const Json& entry = *found->second;
    const std::string_view* dtype = text_of(entry.find("dtype"));
    if (entry.items.size() != 3 || dtype == nullptr || *dtype != tensor.dtype ||
        !is_shape(entry.find("shape"), tensor.shape)) {
      fail("tensor " + tensor.name + ": expected " + described(tensor));
    }
    const Json* offsets = entry.find("data_offsets");
    std::uint64_t end = 0;
    if (offsets == nullptr || offsets->type != Json::Type::kList || offsets->items.size() != 2 ||
        !to_count(offsets->items[0], tensor.begin) || !to_count(offsets->items[1], end) ||
        end < tensor.begin || end - tensor.begin != tensor.bytes()) {
      fail("tensor " + tensor.name + ": data_offsets do not fit its shape");
    }
    spans.emplace_back(tensor.begin, end, &tensor.name);
  }
  std::sort(spans.begin(), spans.end());
  std::uint64_t position = 0;
  for (const auto& [begin, end, name] : spans) {
    if (begin != position) {
      fail("tensor " + *name + ": starts at byte " + std::to_string(begin) + ", expected " +
           std::to_string(position));
    }
    position = end;
  }
  const std::uint64_t found = source_.size() - data_start_;
  if (position != found) {
    fail("tensors: expected " + std::to_string(position) + " bytes, the file has " +
         std::to_string(found) + "; it is truncated or something was appended; copy it again");
  }
}

void Container::read(const TensorType& tensor, std::uint64_t offset, void* to,
                     std::size_t bytes) const {
  source_.read(data_start_ + tensor.begin + offset, to, bytes);
}

}  // namespace lucid
