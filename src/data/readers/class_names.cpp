#include "data/readers/class_names.h"

#include <algorithm>
#include <charconv>

namespace fathom {
namespace {

bool class_name_less(const std::string& a, const std::string& b) {
  const std::optional<int64_t> a_value = class_number(a), b_value = class_number(b);
  if (a_value.has_value() != b_value.has_value()) return a_value.has_value();
  if (a_value != b_value) return *a_value < *b_value;
  return a < b;
}

}  // namespace

std::optional<int64_t> class_number(const std::string& name) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), value);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return value;
}

std::vector<std::string> sorted_class_names(std::vector<std::string> names) {
  std::sort(names.begin(), names.end(), class_name_less);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

}  // namespace fathom
