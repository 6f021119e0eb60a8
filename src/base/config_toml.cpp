// TOML in and out.
#include <toml++/toml.h>
#include <algorithm>
#include <optional>
#include <sstream>

#include "base/config.h"
#include "base/error.h"
#include "base/file.h"

namespace fathom {
namespace {

Json from_toml(const toml::node& node, const std::string& path, std::map<std::string, int>* lines) {
  if (lines) (*lines)[path] = static_cast<int>(node.source().begin.line);
  if (const auto* table = node.as_table()) {
    Json result = Json::object();
    for (const auto& [key, value] : *table) {
      const std::string name(key.str());
      result[name] = from_toml(value, path.empty() ? name : path + "." + name, lines);
    }
    return result;
  }
  if (const auto* array = node.as_array()) {
    Json result = Json::array();
    for (size_t i = 0; i < array->size(); ++i)
      result.push_back(from_toml((*array)[i], fmt::format("{}[{}]", path, i), lines));
    return result;
  }
  if (const auto* value = node.as_string()) return Json(value->get());
  if (const auto* value = node.as_integer()) return Json(value->get());
  if (const auto* value = node.as_floating_point()) return Json(value->get());
  if (const auto* value = node.as_boolean()) return Json(value->get());
  fail(ErrorKind::kConfig, "{}: dates and times are not used in recipes", path);
}

/// Walks over TOML text and knows whether a byte stands inside a string or comment.
class TomlScanner {
 public:
  explicit TomlScanner(const std::string& text) : text_(text) {}

  /// Offset of the first byte beyond ASCII that stands outside strings and comments, or behind a backslash:
  /// no TOML has one there, and toml++ 3.3 has undefined behaviour for some of them.
  std::optional<size_t> find_misplaced() {
    if (text_.starts_with("\xef\xbb\xbf")) start_ = place_ = 3;
    while (place_ < text_.size()) {
      const char c = text_[place_];
      if (is_beyond_ascii(c)) return place_;
      if (c == '#') {
        place_ = std::min(text_.find('\n', place_), text_.size());
      } else if ((c == '"' || c == '\'') && may_begin_string()) {
        if (!skip_string(c)) return place_;
      } else {
        ++place_;
      }
    }
    return std::nullopt;
  }

 private:
  static bool is_beyond_ascii(char c) { return static_cast<unsigned char>(c) >= 0x80; }

  /// A key or a value stands at a line's start or behind one of these; a quote elsewhere is an error, which
  /// the parser may read on over.
  bool may_begin_string() const {
    const size_t before = place_ == 0 ? std::string::npos : text_.find_last_not_of(" \t", place_ - 1);
    return before == std::string::npos || before < start_ ||
           std::string_view("=[]{,.\r\n").find(text_[before]) != std::string_view::npos;
  }

  bool skip_string(char quote) {
    const std::string triple(3, quote);
    const bool multi_line = text_.compare(place_, 3, triple) == 0;
    const std::string closing = multi_line ? triple : std::string(1, quote);
    place_ += closing.size();
    while (place_ < text_.size() && text_.compare(place_, closing.size(), closing) != 0) {
      if (!multi_line && text_[place_] == '\n') return true;  // unterminated: the parser says so
      if (quote == '"' && text_[place_] == '\\') {
        ++place_;
        if (place_ < text_.size() && is_beyond_ascii(text_[place_])) return false;
      }
      ++place_;
    }
    place_ = std::min(place_ + closing.size(), text_.size());
    return true;
  }

  const std::string& text_;
  size_t start_ = 0;  ///< behind a byte order mark
  size_t place_ = 0;
};

toml::table parse_table(const std::string& text, const std::string& source) {
  if (const auto misplaced = TomlScanner(text).find_misplaced()) {
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(*misplaced), '\n');
    fail(ErrorKind::kConfig, "{}:{}: a character beyond ASCII outside of a string or comment", source, line);
  }
  try {
    return toml::parse(text, source);
  } catch (const toml::parse_error& cause) {
    const auto& where = cause.source().begin;
    fail(ErrorKind::kConfig, "{}:{}:{}: {}", source, where.line, where.column, cause.description());
  }
}

void write_toml_table(std::string& out, const Json& table, const std::string& path) {
  for (const auto& [key, value] : table.as_object()) {
    const bool tables = value.is_array() && value.size() > 0 && value.as_array()[0].is_object();
    if (!value.is_object() && !tables && !value.is_null()) out += fmt::format("{} = {}\n", key, value.dump());
  }
  for (const auto& [key, value] : table.as_object()) {
    const std::string name = path.empty() ? key : path + "." + key;
    if (value.is_object()) {
      out += fmt::format("\n[{}]\n", name);
      write_toml_table(out, value, name);
    } else if (value.is_array() && value.size() > 0 && value.as_array()[0].is_object()) {
      for (const Json& item : value.as_array()) {
        out += fmt::format("\n[[{}]]\n", name);
        write_toml_table(out, item, name);
      }
    }
  }
}

Json parse_override_value(const std::string& text) {
  try {
    const toml::table table = parse_table("value = " + text, "--set");
    return table.size() == 1 ? from_toml(*table.get("value"), "value", nullptr) : Json(text);
  } catch (const Error&) {
    return Json(text);  // a bare word is a string
  }
}

}  // namespace

ConfigTree parse_toml(const std::string& text, const std::string& source) {
  ConfigTree tree;
  tree.source = source;
  tree.values = from_toml(parse_table(text, source), "", &tree.lines);
  return tree;
}

ConfigTree read_toml_file(const std::string& path) {
  constexpr uint64_t kMaxBytes = 16 << 20;
  return parse_toml(read_file(path, kMaxBytes), path);
}

void apply_override(ConfigTree& tree, const std::string& assignment) {
  const size_t equals = assignment.find('=');
  const std::string path = "." + assignment.substr(0, equals) + ".";
  if (equals == std::string::npos || path.find("..") != std::string::npos)
    fail(ErrorKind::kUsage, "--set expects key=value, got \"{}\"", assignment);
  Json* level = &tree.values;
  std::istringstream keys(assignment.substr(0, equals));
  for (std::string key; std::getline(keys, key, '.');) {
    if (!level->is_object()) *level = Json::object();
    level = &(*level)[key];
  }
  *level = parse_override_value(assignment.substr(equals + 1));
  tree.lines.erase(assignment.substr(0, equals));
}

std::string json_to_toml(const Json& values) {
  std::string out;
  write_toml_table(out, values, "");
  return out;
}

}  // namespace fathom
