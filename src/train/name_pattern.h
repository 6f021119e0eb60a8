// Patterns of parameter names.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

namespace fathom {

/// Whether `name` fits `pattern`: * stands for any characters (dots too), ? for one, [ab] for one of a few.
bool matches(const std::string& pattern, const std::string& name);

/// Errors (kConfig): no parameter fits; the message names `key` and the nearest parameter.
void require_match(const std::string& pattern,
                   const std::vector<std::pair<std::string, at::Tensor>>& parameters, const char* key);

}  // namespace fathom
