#include "json.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>

#include "error.h"

namespace lucid {
namespace {

constexpr int kMaxDepth = 32;

class Parser {
 public:
  Parser(std::string& text, const std::string& what) : text_(text), what_(what) {}

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

  std::string_view rest() const { return std::string_view(text_).substr(position_); }

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
    if (rest().substr(0, word.size()) != word) fail("unknown word");
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
    const std::size_t first = open_.size();
    while (true) {
      skip_space();
      parse_item({}, depth);
      if (peek() != ',') break;
      ++position_;
    }
    expect(']', "expected , or ]");
    close(value, first);
  }

  void parse_object(Json& value, int depth) {
    value.type = Json::Type::kObject;
    ++position_;
    skip_space();
    if (peek() == '}') {
      ++position_;
      return;
    }
    const std::size_t first = open_.size();
    while (true) {
      skip_space();
      if (peek() != '"') fail("expected a name");
      const std::string_view name = parse_text();
      skip_space();
      expect(':', "expected :");
      skip_space();
      parse_item(name, depth);
      if (peek() != ',') break;
      ++position_;
    }
    expect('}', "expected , or }");
    close(value, first);
    names_.clear();
    for (const Json& item : value.items) names_.push_back(item.name);
    std::sort(names_.begin(), names_.end());
    if (std::adjacent_find(names_.begin(), names_.end()) != names_.end()) {
      fail("a name stands twice in an object that ends");
    }
  }

  void parse_item(std::string_view name, int depth) {
    Json item;
    item.name = name;
    parse_value(item, depth + 1);
    open_.push_back(std::move(item));
    skip_space();
  }

  // Moves the open items from the first on to their list or object.
  void close(Json& value, std::size_t first) {
    const auto begin = open_.begin() + static_cast<std::ptrdiff_t>(first);
    value.items.assign(std::make_move_iterator(begin), std::make_move_iterator(open_.end()));
    open_.erase(begin, open_.end());
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
    value.text = std::string_view(text_).substr(start, position_ - start);
  }

  void parse_digits() {
    if (peek() < '0' || peek() > '9') fail("expected a value");
    while (peek() >= '0' && peek() <= '9') ++position_;
  }

  // What is read is written back where the text begins; no escape is shorter than what it says.
  std::string_view parse_text() {
    ++position_;
    const std::size_t start = position_;
    std::size_t end = start;
    while (true) {
      const std::size_t run = position_;
      while (is_plain(peek())) ++position_;
      put(end, run, position_ - run);
      const auto byte = static_cast<unsigned char>(peek());
      if (byte < 0x20) fail("a text with a control character or without an end");
      if (byte == '"') break;
      if (byte == '\\') {
        parse_escape(end);
      } else {
        const std::size_t size = character_size();
        put(end, position_, size);
        position_ += size;
      }
    }
    ++position_;
    return std::string_view(text_).substr(start, end - start);
  }

  static bool is_plain(char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 && byte < 0x80 && c != '"' && c != '\\';
  }

  void put(std::size_t& end, std::size_t from, std::size_t size) {
    if (end != from) std::memmove(text_.data() + end, text_.data() + from, size);
    end += size;
  }

  void put(std::size_t& end, std::uint32_t byte) { text_[end++] = static_cast<char>(byte); }

  // Bytes of the next character, two to four, each as The Unicode Standard's table 3-7 says.
  std::size_t character_size() const {
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
    return size;
  }

  void parse_escape(std::size_t& end) {
    ++position_;
    const char kind = peek();
    ++position_;
    switch (kind) {
      case '"':
      case '\\':
      case '/':
        return put(end, static_cast<std::uint32_t>(kind));
      case 'b':
        return put(end, '\b');
      case 'f':
        return put(end, '\f');
      case 'n':
        return put(end, '\n');
      case 'r':
        return put(end, '\r');
      case 't':
        return put(end, '\t');
      case 'u':
        return put_utf8(end, parse_code_point());
      default:
        fail("unknown escape");
    }
  }

  std::uint32_t parse_code_point() {
    std::uint32_t code = parse_hex();
    if (code >= 0xdc00 && code <= 0xdfff) fail("half a surrogate pair");
    if (code < 0xd800 || code > 0xdbff) return code;
    if (rest().substr(0, 2) != "\\u") fail("half a surrogate pair");
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

  void put_utf8(std::size_t& end, std::uint32_t code) {
    if (code < 0x80) {
      put(end, code);
    } else if (code < 0x800) {
      put(end, 0xc0 | code >> 6);
      put(end, 0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
      put(end, 0xe0 | code >> 12);
      put(end, 0x80 | (code >> 6 & 0x3f));
      put(end, 0x80 | (code & 0x3f));
    } else {
      put(end, 0xf0 | code >> 18);
      put(end, 0x80 | (code >> 12 & 0x3f));
      put(end, 0x80 | (code >> 6 & 0x3f));
      put(end, 0x80 | (code & 0x3f));
    }
  }

  std::string& text_;
  const std::string& what_;
  std::size_t position_ = 0;
  std::vector<Json> open_;                // items of the lists and objects that have not ended
  std::vector<std::string_view> names_;  // of one that ends
};

}  // namespace

const Json* Json::find(std::string_view wanted) const {
  for (const Json& item : items) {
    if (item.name == wanted) return &item;
  }
  return nullptr;
}

Json parse_json(std::string& text, const std::string& what) { return Parser(text, what).parse(); }

}  // namespace lucid
