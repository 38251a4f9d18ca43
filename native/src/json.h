// A strict JSON parser for text that nobody vouches for.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lucid {

// One value of a JSON text, which has to outlive it.
struct Json {
  enum class Type : std::uint8_t { kNull, kBool, kNumber, kText, kList, kObject };

  Type type = Type::kNull;
  bool whole = false;     // a number written without point and exponent
  std::string_view name;  // in its object
  std::string_view text;  // of a text, UTF-8; of a number, as it is written
  std::vector<Json> items;

  // The item of an object, or nullptr.
  const Json* find(std::string_view wanted) const;
};

// Parses one value and nothing behind it: valid UTF-8, no name twice in an object, a bounded depth.
// Escapes are resolved in place, so that no text is copied: `text` is another afterwards. Throws
// Error(kFile) that begins with `what`.
Json parse_json(std::string& text, const std::string& what);

}  // namespace lucid
