// Configuration: one struct with defaults and one `fields(Fields&)` gives parsing, overrides, help, range
// checks, the record in a checkpoint and the reference page.
//
//   struct OptimizerConfig {
//     double learning_rate = 1e-3;
//     Schedule schedule = Schedule::kCosine;
//     void fields(Fields& f) {
//       f("learning_rate", learning_rate, "peak learning rate", {.low = 0.0});
//       f.choice("schedule", schedule, "shape after warm-up", {{"cosine", Schedule::kCosine}, …});
//     }
//     void validate() const { … }   // optional: relations between fields; throws kConfig
//   };
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace fathom {

/// Inclusive bounds of a number. Integers are checked in the same range.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

/// Visitor over the fields of a configuration struct. Implementations read, write or document.
class Fields {
 public:
  virtual ~Fields() = default;

  virtual void operator()(const char* name, bool& value, const char* help) = 0;
  virtual void operator()(const char* name, int64_t& value, const char* help, Range range = {}) = 0;
  virtual void operator()(const char* name, double& value, const char* help, Range range = {}) = 0;
  virtual void operator()(const char* name, std::string& value, const char* help) = 0;
  virtual void operator()(const char* name, std::vector<int64_t>& value, const char* help,
                          Range range = {}) = 0;
  virtual void operator()(const char* name, std::vector<double>& value, const char* help,
                          Range range = {}) = 0;
  virtual void operator()(const char* name, std::vector<std::string>& value, const char* help) = 0;

  /// An enumeration, written by name.
  template <typename Enum>
  void choice(const char* name, Enum& value, const char* help,
              std::initializer_list<std::pair<const char*, Enum>> options) {
    std::vector<std::string> names;
    int64_t index = 0;
    for (const auto& [option, option_value] : options) {
      if (option_value == value) index = static_cast<int64_t>(names.size());
      names.emplace_back(option);
    }
    visit_choice(name, index, help, names);
    value = (options.begin() + index)->second;
  }

  /// A nested struct: a table in TOML.
  template <typename Config>
  void group(const char* name, Config& value, const char* help) {
    enter_group(name, help);
    value.fields(*this);
    if constexpr (requires { value.validate(); }) validate_group([&] { value.validate(); });
    leave_group();
  }

  /// A list of structs: an array of tables in TOML.
  template <typename Config>
  void list(const char* name, std::vector<Config>& values, const char* help) {
    values.resize(list_size(name, values.size(), help));
    for (size_t i = 0; i < values.size(); ++i) {
      enter_item(name, i);
      values[i].fields(*this);
      if constexpr (requires { values[i].validate(); }) validate_group([&] { values[i].validate(); });
      leave_item();
    }
    if (wants_example() && values.empty()) {
      Config example{};
      enter_item(name, 0);
      example.fields(*this);
      leave_item();
    }
  }

 protected:
  virtual void visit_choice(const char* name, int64_t& index, const char* help,
                            const std::vector<std::string>& names) = 0;
  virtual void enter_group(const char* name, const char* help) = 0;
  virtual void leave_group() = 0;
  virtual size_t list_size(const char* name, size_t current, const char* help) = 0;
  virtual void enter_item(const char* name, size_t index) = 0;
  virtual void leave_item() = 0;
  virtual void validate_group(const std::function<void()>&) {}
  virtual bool wants_example() const { return false; }
};

/// A parsed recipe: values, and where each was written.
struct ConfigTree {
  Json values = Json::object();
  std::string source;                ///< file name, for messages
  std::map<std::string, int> lines;  ///< dotted path → line in `source`; overrides have no line
};

/// Parses TOML. Errors (kConfig) name source, line and reason.
ConfigTree parse_toml(const std::string& text, const std::string& source);
ConfigTree read_toml_file(const std::string& path);
/// Applies "a.b.c=value"; the value is read as a TOML value, or else as a string. Errors: kUsage without "=".
void apply_override(ConfigTree& tree, const std::string& assignment);

namespace detail {
void read_fields(const ConfigTree& tree, const std::function<void(Fields&)>& visit,
                 const std::function<void()>& validate);
Json write_fields(const std::function<void(Fields&)>& visit);
std::string document_fields(const std::function<void(Fields&)>& visit);
}  // namespace detail

/// Reads a struct; absent keys keep their defaults. Errors (kConfig): an unknown key (with the nearest known
/// one), a wrong type, a value out of range, a failed `validate()`; each names file, line and dotted key.
template <typename Config>
Config read_config(const ConfigTree& tree) {
  Config config{};
  detail::read_fields(
      tree, [&](Fields& f) { config.fields(f); },
      [&] {
        if constexpr (requires { config.validate(); }) config.validate();
      });
  return config;
}

/// The struct with every value, as it is recorded in a checkpoint; `read_config` reads it back.
template <typename Config>
Json config_to_json(const Config& config) {
  Config copy = config;
  return detail::write_fields([&](Fields& f) { copy.fields(f); });
}

/// The same as TOML.
std::string json_to_toml(const Json& values);

/// A Markdown page with a table a group: key, type, default, range or choices, meaning.
template <typename Config>
std::string config_reference() {
  Config config{};
  return detail::document_fields([&](Fields& f) { config.fields(f); });
}

/// The candidate nearest to `name` by edit distance, or an empty string when none is near.
std::string nearest_name(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace fathom
