#include "train/name_pattern.h"

#include <fnmatch.h>

#include "base/config.h"
#include "base/error.h"

namespace fathom {

bool matches(const std::string& pattern, const std::string& name) {
  return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

void require_match(const std::string& pattern,
                   const std::vector<std::pair<std::string, at::Tensor>>& parameters, const char* key) {
  std::vector<std::string> names;
  for (const auto& [name, parameter] : parameters) {
    if (matches(pattern, name)) return;
    names.push_back(name);
  }
  const std::string nearest = nearest_name(pattern, names);
  const std::string hint = nearest.empty()
                               ? fmt::format("; the first one is \"{}\"", names.empty() ? "" : names[0])
                               : fmt::format("; did you mean \"{}\"?", nearest);
  fail(ErrorKind::kConfig, "{}: no parameter fits \"{}\"{}", key, pattern, hint);
}

}  // namespace fathom
