#include "base/json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace fathom {
namespace {

constexpr int kMaxDepth = 200;
constexpr size_t kMostShown = 300;

[[noreturn]] void wrong_kind(const char* expected, const Json& value) {
  fail(ErrorKind::kData, "expected {} in JSON, got {}", expected, value.kind_name());
}

/// Passes on what the parser meets; refuses deep nesting before it can exhaust the stack.
class Walker : public nlohmann::json_sax<nlohmann::json> {
 public:
  Walker(std::string_view text, const std::string& source, JsonEvents& events)
      : text_(text), source_(source), events_(events) {}

  bool null() override { return put(Json()); }
  bool boolean(bool value) override { return put(Json(value)); }
  bool number_integer(number_integer_t value) override { return put(Json(static_cast<int64_t>(value))); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX)) return put(Json(static_cast<double>(value)));
    return put(Json(static_cast<int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t&) override { return put(Json(value)); }
  bool string(string_t& value) override { return put(Json(std::move(value))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override {
    go_deeper();
    events_.open_object();
    return true;
  }
  bool start_array(std::size_t) override {
    go_deeper();
    events_.open_array();
    return true;
  }
  bool key(string_t& name) override {
    events_.key(std::move(name));
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& cause) override {
    const size_t end = std::min(position > 0 ? position - 1 : 0, text_.size());
    const auto line = 1 + std::count(text_.begin(), text_.begin() + end, '\n');
    const size_t newline = end == 0 ? std::string_view::npos : text_.rfind('\n', end - 1);
    const size_t column = newline == std::string_view::npos ? end + 1 : end - newline;
    std::string reason = cause.what();
    if (const size_t start = reason.find(": "); start != std::string::npos) reason = reason.substr(start + 2);
    if (reason.size() > kMostShown) reason = reason.substr(0, kMostShown) + "…";  // it quotes the text
    fail(ErrorKind::kData, "{}:{}:{}: not valid JSON: {}", source_, line, column, reason);
  }

 private:
  bool put(Json value) {
    events_.value(std::move(value));
    return true;
  }
  void go_deeper() {
    if (++depth_ > kMaxDepth)
      fail(ErrorKind::kData, "{}: JSON nested deeper than {} levels", source_, kMaxDepth);
  }
  bool close() {
    --depth_;
    events_.close();
    return true;
  }

  std::string_view text_;
  const std::string& source_;
  JsonEvents& events_;
  int depth_ = 0;
};

class TreeBuilder : public JsonEvents {
 public:
  void value(Json value) override {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (stack_.back().is_array()) {
      stack_.back().push_back(std::move(value));
    } else {
      stack_.back().as_object().emplace_back(std::move(keys_.back()), std::move(value));
    }
  }
  void key(std::string name) override { keys_.back() = std::move(name); }
  void open_object() override { open(Json::object()); }
  void open_array() override { open(Json::array()); }
  void close() override {
    Json finished = std::move(stack_.back());
    stack_.pop_back();
    keys_.pop_back();
    value(std::move(finished));
  }

  Json take() { return std::move(root_); }

 private:
  void open(Json container) {
    stack_.push_back(std::move(container));
    keys_.emplace_back();
  }

  Json root_;
  std::vector<Json> stack_;
  std::vector<std::string> keys_;
};

void write_string(std::string& out, const std::string& value) {
  out += nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void write(std::string& out, const Json& value, int indent, int depth);

template <typename Items, typename WriteItem>
void write_items(std::string& out, const Items& items, char open, char close, int indent, int depth,
                 const WriteItem& write_item) {
  out += open;
  bool first = true;
  for (const auto& item : items) {
    if (!first) out += ',';
    first = false;
    if (indent >= 0) out.append("\n").append(static_cast<size_t>(indent) * (depth + 1), ' ');
    write_item(item);
  }
  if (!first && indent >= 0) out.append("\n").append(static_cast<size_t>(indent) * depth, ' ');
  out += close;
}

void write(std::string& out, const Json& value, int indent, int depth) {
  if (value.is_null()) {
    out += "null";
  } else if (value.is_bool()) {
    out += value.as_bool() ? "true" : "false";
  } else if (value.is_int()) {
    out += std::to_string(value.as_int());
  } else if (value.is_number()) {
    out += std::isfinite(value.as_double()) ? nlohmann::json(value.as_double()).dump() : "null";
  } else if (value.is_string()) {
    write_string(out, value.as_string());
  } else if (value.is_array()) {
    write_items(out, value.as_array(), '[', ']', indent, depth,
                [&](const Json& item) { write(out, item, indent, depth + 1); });
  } else {
    write_items(out, value.as_object(), '{', '}', indent, depth, [&](const auto& member) {
      write_string(out, member.first);
      out += indent < 0 ? ":" : ": ";
      write(out, member.second, indent, depth + 1);
    });
  }
}

}  // namespace

const char* Json::kind_name() const {
  constexpr const char* kNames[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
  return kNames[value_.index()];
}

bool Json::as_bool() const {
  if (const bool* value = std::get_if<bool>(&value_)) return *value;
  wrong_kind("a boolean", *this);
}

int64_t Json::as_int() const {
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return *value;
  wrong_kind("an integer", *this);
}

double Json::as_double() const {
  if (const double* value = std::get_if<double>(&value_)) return *value;
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return static_cast<double>(*value);
  wrong_kind("a number", *this);
}

const std::string& Json::as_string() const {
  if (const auto* value = std::get_if<std::string>(&value_)) return *value;
  wrong_kind("a string", *this);
}

const Json::Array& Json::as_array() const {
  if (const auto* value = std::get_if<Array>(&value_)) return *value;
  wrong_kind("an array", *this);
}

Json::Array& Json::as_array() {
  return const_cast<Array&>(std::as_const(*this).as_array());
}

const Json::Object& Json::as_object() const {
  if (const auto* value = std::get_if<Object>(&value_)) return *value;
  wrong_kind("an object", *this);
}

Json::Object& Json::as_object() {
  return const_cast<Object&>(std::as_const(*this).as_object());
}

const Json* Json::find(std::string_view key) const {
  const auto* members = std::get_if<Object>(&value_);
  if (!members) return nullptr;
  for (const auto& [name, value] : *members)
    if (name == key) return &value;
  return nullptr;
}

Json* Json::find(std::string_view key) {
  return const_cast<Json*>(std::as_const(*this).find(key));
}

const Json& Json::at(std::string_view key) const {
  if (const Json* value = find(key)) return *value;
  fail(ErrorKind::kData, "missing key \"{}\" in JSON {}", key, kind_name());
}

Json& Json::operator[](std::string_view key) {
  if (is_null()) value_ = Object{};
  if (Json* value = find(key)) return *value;
  return as_object().emplace_back(std::string(key), Json()).second;
}

void Json::push_back(Json value) {
  if (is_null()) value_ = Array{};
  as_array().push_back(std::move(value));
}

size_t Json::size() const {
  if (is_array()) return as_array().size();
  if (is_object()) return as_object().size();
  return 0;
}

std::string Json::dump(int indent) const {
  std::string out;
  write(out, *this, indent, 0);
  return out;
}

Json parse_json(std::string_view text, const std::string& source) {
  TreeBuilder tree;
  walk_json(text, source, tree);
  return tree.take();
}

void walk_json(std::string_view text, const std::string& source, JsonEvents& events) {
  Walker walker(text, source, events);
  nlohmann::json::sax_parse(text.begin(), text.end(), &walker);
}

Json read_json_file(const std::string& path) {
  return parse_json(read_file(path), path);
}

void write_json_file(const std::string& path, const Json& value, int indent) {
  write_file_atomically(path, value.dump(indent) + "\n");
}

}  // namespace fathom
