// SPDX-License-Identifier: MIT

/* Just enough JSON to read the metadata of a model file. */

#ifndef TDN_JSON_H
#define TDN_JSON_H

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace tdn {

class Json {
 public:
  enum class Kind { null, boolean, number, string, array, object };

  /// Parse a whole document; throws std::runtime_error with the position of the first mistake.
  static Json parse(const std::string &text);

  Kind kind() const { return kind_; }
  bool has(const std::string &key) const { return members_.count(key) != 0; }

  /// Member of an object; throws std::runtime_error that names the missing key.
  const Json &at(const std::string &key) const;

  double number() const;
  int64_t integer() const;
  const std::string &string() const;
  const std::vector<Json> &array() const;

  std::vector<std::string> strings() const;
  std::vector<int64_t> integers() const;

  /// All numbers of a nested array in row-major order.
  std::vector<double> flat_numbers() const;

  /// Member `key` as text, or `fallback` when it is missing or no string.
  std::string text_or(const std::string &key, const std::string &fallback) const;

 private:
  friend class JsonParser;

  void append_numbers(std::vector<double> &out) const;
  [[noreturn]] void wrong_kind(const char *expected) const;

  Kind kind_ = Kind::null;
  double number_ = 0.0;
  std::string string_;
  std::vector<Json> items_;
  std::map<std::string, Json> members_;
};

}    // namespace tdn

#endif
