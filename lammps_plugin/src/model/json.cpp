// SPDX-License-Identifier: MIT

#include "json.h"

#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <utility>

namespace tdn {

class JsonParser {
 public:
  explicit JsonParser(const std::string &text) : text_(text) {}

  Json document()
  {
    Json value = parse_value(0);
    skip_blanks();
    if (position_ != text_.size()) fail("unexpected text after the end");
    return value;
  }

 private:
  static constexpr int max_depth = 64;

  const std::string &text_;
  std::size_t position_ = 0;

  [[noreturn]] void fail(const std::string &what) const
  {
    throw std::runtime_error("invalid JSON at character " + std::to_string(position_) + ": " + what);
  }

  void skip_blanks()
  {
    position_ = text_.find_first_not_of(" \t\r\n", position_);
    if (position_ == std::string::npos) position_ = text_.size();
  }

  char peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

  void expect(char symbol)
  {
    if (peek() != symbol) fail(std::string("expected '") + symbol + "'");
    ++position_;
  }

  bool accept(char symbol)
  {
    skip_blanks();
    if (peek() != symbol) return false;
    ++position_;
    return true;
  }

  bool accept_word(const std::string &word)
  {
    if (text_.compare(position_, word.size(), word) != 0) return false;
    position_ += word.size();
    return true;
  }

  Json parse_value(int depth)
  {
    if (depth > max_depth) fail("nested too deeply");
    skip_blanks();
    Json value;
    switch (peek()) {
      case '{':
        parse_object(value, depth);
        break;
      case '[':
        parse_array(value, depth);
        break;
      case '"':
        value.kind_ = Json::Kind::string;
        value.string_ = parse_string();
        break;
      default:
        parse_scalar(value);
    }
    return value;
  }

  void parse_object(Json &value, int depth)
  {
    value.kind_ = Json::Kind::object;
    expect('{');
    if (accept('}')) return;
    do {
      skip_blanks();
      std::string key = parse_string();
      skip_blanks();
      expect(':');
      value.members_[std::move(key)] = parse_value(depth + 1);
    } while (accept(','));
    skip_blanks();
    expect('}');
  }

  void parse_array(Json &value, int depth)
  {
    value.kind_ = Json::Kind::array;
    expect('[');
    if (accept(']')) return;
    do value.items_.push_back(parse_value(depth + 1));
    while (accept(','));
    skip_blanks();
    expect(']');
  }

  void parse_scalar(Json &value)
  {
    if (accept_word("null")) return;
    if (accept_word("true") || accept_word("false")) {
      value.kind_ = Json::Kind::boolean;
      value.number_ = text_[position_ - 2] == 'u' ? 1.0 : 0.0;
      return;
    }
    value.kind_ = Json::Kind::number;
    const char *begin = text_.c_str() + position_;
    char *end = nullptr;
    value.number_ = std::strtod(begin, &end);    // accepts Python's NaN and Infinity too
    if (end == begin) fail("expected a value");
    position_ += static_cast<std::size_t>(end - begin);
  }

  std::string parse_string()
  {
    expect('"');
    std::string out;
    while (position_ < text_.size()) {
      const char symbol = text_[position_++];
      if (symbol == '"') return out;
      if (symbol == '\\')
        parse_escape(out);
      else
        out += symbol;
    }
    fail("unterminated string");
  }

  void parse_escape(std::string &out)
  {
    const char symbol = peek();
    ++position_;
    switch (symbol) {
      case 'b': out += '\b'; break;
      case 'f': out += '\f'; break;
      case 'n': out += '\n'; break;
      case 'r': out += '\r'; break;
      case 't': out += '\t'; break;
      case 'u': append_utf8(parse_code_point(), out); break;
      case '"':
      case '\\':
      case '/': out += symbol; break;
      default: fail("unknown escape");
    }
  }

  uint32_t parse_hex()
  {
    if (position_ + 4 > text_.size()) fail("incomplete \\u escape");
    const std::string digits = text_.substr(position_, 4);
    if (digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
      fail("invalid \\u escape");
    position_ += 4;
    return static_cast<uint32_t>(std::strtoul(digits.c_str(), nullptr, 16));
  }

  uint32_t parse_code_point()
  {
    const uint32_t code = parse_hex();
    if (code < 0xD800 || code > 0xDBFF) return code;
    if (!accept_word("\\u")) fail("incomplete surrogate pair");
    return 0x10000 + ((code - 0xD800) << 10) + (parse_hex() - 0xDC00);
  }

  static void append_utf8(uint32_t code, std::string &out)
  {
    if (code < 0x80) {
      out += static_cast<char>(code);
      return;
    }
    const int extra = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    const uint32_t lead[] = {0xC0, 0xE0, 0xF0};
    out += static_cast<char>(lead[extra - 1] | (code >> (6 * extra)));
    for (int k = extra - 1; k >= 0; k--) out += static_cast<char>(0x80 | ((code >> (6 * k)) & 0x3F));
  }
};

Json Json::parse(const std::string &text)
{
  return JsonParser(text).document();
}

void Json::wrong_kind(const char *expected) const
{
  static const char *const names[] = {"null", "a boolean", "a number", "a string", "an array",
                                      "an object"};
  throw std::runtime_error(std::string("expected ") + expected + ", found " +
                           names[static_cast<int>(kind_)]);
}

const Json &Json::at(const std::string &key) const
{
  if (kind_ != Kind::object) wrong_kind("an object");
  const auto found = members_.find(key);
  if (found == members_.end()) throw std::runtime_error("the entry \"" + key + "\" is missing");
  return found->second;
}

double Json::number() const
{
  if (kind_ != Kind::number) wrong_kind("a number");
  return number_;
}

int64_t Json::integer() const
{
  const double value = number();
  if (value != std::floor(value)) wrong_kind("an integer");
  return static_cast<int64_t>(value);
}

const std::string &Json::string() const
{
  if (kind_ != Kind::string) wrong_kind("a string");
  return string_;
}

const std::vector<Json> &Json::array() const
{
  if (kind_ != Kind::array) wrong_kind("an array");
  return items_;
}

std::vector<std::string> Json::strings() const
{
  std::vector<std::string> out;
  for (const Json &item : array()) out.push_back(item.string());
  return out;
}

std::vector<int64_t> Json::integers() const
{
  std::vector<int64_t> out;
  for (const Json &item : array()) out.push_back(item.integer());
  return out;
}

std::vector<double> Json::flat_numbers() const
{
  std::vector<double> out;
  append_numbers(out);
  return out;
}

void Json::append_numbers(std::vector<double> &out) const
{
  if (kind_ == Kind::array)
    for (const Json &item : items_) item.append_numbers(out);
  else
    out.push_back(number());
}

std::string Json::text_or(const std::string &key, const std::string &fallback) const
{
  if (kind_ != Kind::object) return fallback;
  const auto found = members_.find(key);
  if (found == members_.end() || found->second.kind_ != Kind::string) return fallback;
  return found->second.string_;
}

}    // namespace tdn
