#include "json.h"

#include <algorithm>
#include <cstddef>

#include "error.h"

namespace lucid {
namespace {

constexpr int kMaxDepth = 32;

class Parser {
 public:
  Parser(std::string_view text, const std::string& what) : text_(text), what_(what) {}

  Json parse() {
    Json value;
    skip_space();
    parse_value(value, 0);
    skip_space();
    if (position_ != text_.size()) fail("something stands behind the value");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* reason) const {
    throw Error(ErrorKind::kFile, what_ + ": no valid JSON (" + reason + " at byte " +
                                      std::to_string(position_) + ")");
  }

  // The next byte, or 0 at the end; no valid JSON has a 0.
  char peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

  void expect(char c, const char* reason) {
    if (peek() != c) fail(reason);
    ++position_;
  }

  void skip_space() {
    while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++position_;
  }

  void parse_value(Json& value, int depth) {
    if (depth == kMaxDepth) fail("nested too deep");
    switch (peek()) {
      case '{':
        return parse_object(value, depth);
      case '[':
        return parse_list(value, depth);
      case '"':
        value.type = Json::Type::kText;
        value.text = parse_text();
        return;
      case 't':
        value.type = Json::Type::kBool;
        return parse_word("true");
      case 'f':
        value.type = Json::Type::kBool;
        return parse_word("false");
      case 'n':
        return parse_word("null");
      default:
        return parse_number(value);
    }
  }

  void parse_word(std::string_view word) {
    if (text_.substr(position_, word.size()) != word) fail("unknown word");
    position_ += word.size();
  }

  void parse_list(Json& value, int depth) {
    value.type = Json::Type::kList;
    ++position_;
    skip_space();
    if (peek() == ']') {
      ++position_;
      return;
    }
    while (true) {
      skip_space();
      value.items.emplace_back();
      parse_value(value.items.back(), depth + 1);
      skip_space();
      if (peek() != ',') break;
      ++position_;
    }
    expect(']', "expected , or ]");
  }

  void parse_object(Json& value, int depth) {
    value.type = Json::Type::kObject;
    ++position_;
    skip_space();
    if (peek() == '}') {
      ++position_;
      return;
    }
    while (true) {
      skip_space();
      if (peek() != '"') fail("expected a name");
      value.names.push_back(parse_text());
      skip_space();
      expect(':', "expected :");
      skip_space();
      value.items.emplace_back();
      parse_value(value.items.back(), depth + 1);
      skip_space();
      if (peek() != ',') break;
      ++position_;
    }
    expect('}', "expected , or }");
    std::vector<std::string_view> sorted(value.names.begin(), value.names.end());
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
      fail("a name stands twice in an object that ends");
    }
  }

  void parse_number(Json& value) {
    const std::size_t start = position_;
    if (peek() == '-') ++position_;
    if (peek() == '0') {
      ++position_;
    } else {
      parse_digits();
    }
    value.whole = true;
    if (peek() == '.') {
      ++position_;
      parse_digits();
      value.whole = false;
    }
    if (peek() == 'e' || peek() == 'E') {
      ++position_;
      if (peek() == '+' || peek() == '-') ++position_;
      parse_digits();
      value.whole = false;
    }
    value.type = Json::Type::kNumber;
    value.text = text_.substr(start, position_ - start);
  }

  void parse_digits() {
    if (peek() < '0' || peek() > '9') fail("expected a value");
    while (peek() >= '0' && peek() <= '9') ++position_;
  }

  std::string parse_text() {
    std::string result;
    ++position_;
    while (true) {
      const auto byte = static_cast<unsigned char>(peek());
      if (byte < 0x20) fail("a text with a control character or without an end");
      if (byte == '"') break;
      if (byte == '\\') {
        parse_escape(result);
      } else if (byte < 0x80) {
        result += peek();
        ++position_;
      } else {
        copy_character(result);
      }
    }
    ++position_;
    return result;
  }

  // A character of two to four bytes, each as The Unicode Standard's table 3-7 says.
  void copy_character(std::string& result) {
    const auto byte = [this](std::size_t k) {
      return position_ + k < text_.size() ? static_cast<unsigned char>(text_[position_ + k]) : 0u;
    };
    const unsigned first = byte(0);
    std::size_t size = 0;
    if (first >= 0xc2 && first <= 0xdf) size = 2;
    if (first >= 0xe0 && first <= 0xef) size = 3;
    if (first >= 0xf0 && first <= 0xf4) size = 4;
    const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    bool valid = size != 0 && byte(1) >= low && byte(1) <= high;
    for (std::size_t k = 2; k < size; ++k) valid = valid && (byte(k) & 0xc0) == 0x80;
    if (!valid) fail("no UTF-8");
    result += text_.substr(position_, size);
    position_ += size;
  }

  void parse_escape(std::string& result) {
    ++position_;
    const char kind = peek();
    ++position_;
    switch (kind) {
      case '"':
      case '\\':
      case '/':
        result += kind;
        return;
      case 'b':
        result += '\b';
        return;
      case 'f':
        result += '\f';
        return;
      case 'n':
        result += '\n';
        return;
      case 'r':
        result += '\r';
        return;
      case 't':
        result += '\t';
        return;
      case 'u':
        return append_utf8(result, parse_code_point());
      default:
        fail("unknown escape");
    }
  }

  std::uint32_t parse_code_point() {
    std::uint32_t code = parse_hex();
    if (code >= 0xdc00 && code <= 0xdfff) fail("half a surrogate pair");
    if (code < 0xd800 || code > 0xdbff) return code;
    if (text_.substr(position_, 2) != "\\u") fail("half a surrogate pair");
    position_ += 2;
    const std::uint32_t low = parse_hex();
    if (low < 0xdc00 || low > 0xdfff) fail("half a surrogate pair");
    return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }

  std::uint32_t parse_hex() {
    std::uint32_t code = 0;
    for (int k = 0; k < 4; ++k, ++position_) {
      const char c = peek();
      if (c >= '0' && c <= '9') {
        code = code * 16 + static_cast<std::uint32_t>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        code = code * 16 + static_cast<std::uint32_t>(c - 'a' + 10);
      } else if (c >= 'A' && c <= 'F') {
        code = code * 16 + static_cast<std::uint32_t>(c - 'A' + 10);
      } else {
        fail("expected four hexadecimal digits");
      }
    }
    return code;
  }

  static void append_utf8(std::string& result, std::uint32_t code) {
    const auto put = [&result](std::uint32_t byte) { result += static_cast<char>(byte); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xc0 | code >> 6);
      put(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
      put(0xe0 | code >> 12);
      put(0x80 | (code >> 6 & 0x3f));
      put(0x80 | (code & 0x3f));
    } else {
      put(0xf0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3f));
      put(0x80 | (code >> 6 & 0x3f));
      put(0x80 | (code & 0x3f));
    }
  }

  std::string_view text_;
  const std::string& what_;
  std::size_t position_ = 0;
};

}  // namespace

const Json* Json::find(std::string_view name) const {
  for (std::size_t k = 0; k < names.size(); ++k) {
    if (names[k] == name) return &items[k];
  }
  return nullptr;
}

Json parse_json(std::string_view text, const std::string& what) {
  return Parser(text, what).parse();
}

}  // namespace lucid
