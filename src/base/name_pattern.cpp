#include "base/name_pattern.h"

#include <fnmatch.h>

#include <algorithm>

#include "base/config.h"
#include "base/error.h"

namespace fathom {

bool matches(const std::string& pattern, const std::string& name) {
  return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

void require_match(const std::string& pattern, const std::vector<std::string>& names, const char* key,
                   const char* what) {
  if (std::any_of(names.begin(), names.end(), [&](const auto& name) { return matches(pattern, name); }))
    return;
  const std::string nearest = nearest_name(pattern, names);
  const std::string hint = nearest.empty()
                               ? fmt::format("; the first one is \"{}\"", names.empty() ? "" : names[0])
                               : fmt::format("; did you mean \"{}\"?", nearest);
  fail(ErrorKind::kConfig, "{}: no {} fits \"{}\"{}", key, what, pattern, hint);
}

}  // namespace fathom
