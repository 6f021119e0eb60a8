// A JSON value: parse with position in errors, write, and typed access. Objects keep their order of
// insertion.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace fathom {

/// Value type; freely copied and moved. Access to the wrong kind throws kData, as parsing does: who reads
/// something else than data says so.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;

  Json() = default;  ///< null
  Json(bool value) : value_(value) {}
  Json(int value) : value_(static_cast<int64_t>(value)) {}
  Json(int64_t value) : value_(value) {}
  Json(uint64_t value) : value_(static_cast<int64_t>(value)) {}
  Json(double value) : value_(value) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}

  static Json array() { return Json(Array{}); }
  static Json object() { return Json(Object{}); }

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_int() const { return std::holds_alternative<int64_t>(value_); }
  bool is_number() const { return is_int() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }
  /// "null", "boolean", "integer", "number", "string", "array" or "object": for messages.
  const char* kind_name() const;

  bool as_bool() const;
  int64_t as_int() const;
  double as_double() const;  ///< integers convert
  const std::string& as_string() const;
  const Array& as_array() const;
  Array& as_array();
  const Object& as_object() const;
  Object& as_object();

  /// Member of an object, or nullptr when it is absent (or this is no object).
  const Json* find(std::string_view key) const;
  Json* find(std::string_view key);
  /// Member of an object; throws kData naming the key when it is absent.
  const Json& at(std::string_view key) const;
  /// Inserts or replaces; null becomes an object first.
  Json& operator[](std::string_view key);
  void push_back(Json value);
  size_t size() const;

  /// One line without spaces, or indented by `indent` spaces a level. NaN and infinities are written as null.
  std::string dump(int indent = -1) const;

  bool operator==(const Json&) const = default;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

/// Parses UTF-8 JSON text. Errors (kData) read "SOURCE:LINE:COLUMN: reason". Nesting is limited to 200
/// levels.
Json parse_json(std::string_view text, const std::string& source);

/// What stands in a text, in its order: for texts that must not become a tree, which takes tens of times
/// their bytes. What a member throws ends the walk and passes.
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual void value(Json value) = 0;  ///< null, a boolean, a number or a string
  virtual void key(std::string name) = 0;
  virtual void open_object() = 0;
  virtual void open_array() = 0;
  virtual void close() = 0;  ///< of the object or array opened last
};
/// Errors as `parse_json`.
void walk_json(std::string_view text, const std::string& source, JsonEvents& events);

Json read_json_file(const std::string& path);
/// Writes beside, syncs, renames.
void write_json_file(const std::string& path, const Json& value, int indent = 2);

}  // namespace fathom
