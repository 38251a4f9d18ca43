// A network file: a safetensors file whose metadata is lucid's (docs/network.rst). Nothing in it is
// taken on trust: sizes, names, types and places are checked before a tensor is read.

#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "json.h"

namespace lucid {

// Where the bytes come from. Tensors are read one at a time, so that a network never lies in memory
// both as it is stored and as the kernels want it.
class Source {
 public:
  virtual ~Source() = default;
  virtual std::uint64_t size() const = 0;
  // The range lies within the source.
  virtual void read(std::uint64_t offset, void* to, std::size_t bytes) = 0;
};

class MemorySource : public Source {
 public:
  MemorySource(const void* data, std::size_t bytes)
      : data_(static_cast<const char*>(data)), bytes_(bytes) {}
  std::uint64_t size() const override { return bytes_; }
  void read(std::uint64_t offset, void* to, std::size_t bytes) override;

 private:
  const char* data_;
  std::size_t bytes_;
};

class FileSource : public Source {
 public:
  // `path` is UTF-8. Throws Error(kFile).
  explicit FileSource(const std::string& path);
  std::uint64_t size() const override { return bytes_; }
  void read(std::uint64_t offset, void* to, std::size_t bytes) override;

 private:
  std::ifstream file_;
  std::uint64_t bytes_ = 0;
};

// A tensor that a file has to hold.
struct TensorType {
  std::string name;
  const char* dtype;  // safetensors' code
  std::size_t item_bytes;
  std::vector<std::int64_t> shape;

  std::uint64_t bytes() const;
};

class Container {
 public:
  // Reads and checks the header. Throws Error(kFile), as all functions here.
  explicit Container(Source& source);

  // The JSON text of the metadata's field "lucid".
  const std::string& text() const { return text_; }

  // Checks that the file holds these tensors and nothing else.
  void check(const std::vector<TensorType>& expected) const;

  // Reads a tensor that check() has seen; `to` has room for its bytes.
  void read(const TensorType& tensor, void* to) const;

 private:
  Source& source_;
  Json layout_;
  std::string text_;
  std::uint64_t data_start_ = 0;
};

}  // namespace lucid
