// Hugging Face's JSON files, key by key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace fathom {

/// Typed access to the keys of config.json and its like; null counts as absent. Errors (kCheckpoint) name
/// file and key.
class HfConfig {
 public:
  /// REQUIRES both to live as long.
  HfConfig(const Json& json, const std::string& source) : json_(json), source_(source) {}

  int64_t integer(const char* key, std::optional<int64_t> fallback = {}) const {
    const Json* value = present(key);
    if (value == nullptr && fallback) return *fallback;
    if (value == nullptr || !value->is_int()) refuse(key, "an integer");
    return value->as_int();
  }
  double number(const char* key, double fallback) const {
    const Json* value = present(key);
    if (value == nullptr) return fallback;
    if (!value->is_number()) refuse(key, "a number");
    return value->as_double();
  }
  bool flag(const char* key, bool fallback) const {
    const Json* value = present(key);
    if (value == nullptr) return fallback;
    if (!value->is_bool()) refuse(key, "true or false");
    return value->as_bool();
  }
  std::string text(const char* key, const std::string& fallback) const {
    const Json* value = present(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) refuse(key, "a string");
    return value->as_string();
  }
  std::vector<int64_t> integers(const char* key) const {
    const Json* value = present(key);
    if (value == nullptr || !value->is_array()) refuse(key, "a list of integers");
    std::vector<int64_t> items;
    for (const Json& item : value->as_array()) {
      if (!item.is_int()) refuse(key, "a list of integers");
      items.push_back(item.as_int());
    }
    return items;
  }
  std::vector<double> numbers(const char* key, const std::vector<double>& fallback) const {
    const Json* value = present(key);
    if (value == nullptr) return fallback;
    if (!value->is_array()) refuse(key, "a list of numbers");
    std::vector<double> items;
    for (const Json& item : value->as_array()) {
      if (!item.is_number()) refuse(key, "a list of numbers");
      items.push_back(item.as_double());
    }
    return items;
  }
  const Json* present(const char* key) const {
    const Json* value = json_.find(key);
    return value != nullptr && !value->is_null() ? value : nullptr;
  }
  /// Stops unless `holds`, naming what this model needs that we do not have.
  void require(bool holds, const std::string& what) const {
    if (!holds) fail(ErrorKind::kCheckpoint, "{}: {} is not supported", source_, what);
  }

 private:
  [[noreturn]] void refuse(const char* key, const char* kind) const {
    fail(ErrorKind::kCheckpoint, "{}: {} must be {}", source_, key, kind);
  }

  const Json& json_;
  const std::string& source_;
};

}  // namespace fathom
