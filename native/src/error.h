// What goes wrong in the engine, with a text for the person who can mend it.

#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace lucid {

enum class ErrorKind {
  kArgument,  // an option is out of range or unknown
  kFile,      // a network file can't be read, or contradicts itself
  kNetwork,   // the network's numbers could overflow, or it needs what this build lacks
  kImage,     // images of the wrong size
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// A text of a file in quotes, as it may stand in a message: short, no control characters.
std::string in_quotes(std::string_view text);

}  // namespace lucid
