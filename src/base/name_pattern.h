// Patterns of names: parameters, layers.
#pragma once

#include <string>
#include <vector>

namespace fathom {

/// Whether `name` fits `pattern`: * stands for any characters (dots too), ? for one, [ab] for one of a few.
bool matches(const std::string& pattern, const std::string& name);

/// Errors (kConfig): no name fits; the message says so of `key` and `what` ("parameter"), with the nearest
/// name.
void require_match(const std::string& pattern, const std::vector<std::string>& names, const char* key,
                   const char* what = "parameter");

}  // namespace fathom
