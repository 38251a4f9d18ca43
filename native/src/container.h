// A network file: a safetensors file whose metadata is lucid's (docs/network.rst). Nothing in it is
// taken on trust: sizes, names, types and places are checked before a tensor is read.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "json.h"
#include "source.h"

namespace lucid {

// A tensor that a file has to hold.
struct TensorType {
  std::string name;
  const char* dtype;  // safetensors' code
  std::size_t item_bytes;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // where it stands among the tensors; check() finds it

  std::uint64_t bytes() const;
};

class Container {
 public:
  // Reads and checks the header. Throws Error(kFile), as all functions here.
  explicit Container(Source& source);
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  // The JSON text of the metadata's field "lucid".
  const std::string& text() const { return text_; }

  // Checks that the file holds these tensors and nothing else, and finds where.
  void check(std::vector<TensorType>& expected) const;

  // Reads bytes of a tensor that check() has seen, from `offset` on; they lie within it.
  void read(const TensorType& tensor, std::uint64_t offset, void* to, std::size_t bytes) const;

 private:
  Source& source_;
  std::string header_;
  Json layout_;  // in the header
  std::string text_;
  std::uint64_t data_start_ = 0;
};

}  // namespace lucid
