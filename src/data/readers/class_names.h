// How the names of classes are ordered, and which of them are numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fathom {

/// The number that is a class's whole name ("7"), if it is one.
std::optional<int64_t> class_number(const std::string& name);

/// Each name once: numbers by value and before words, words by their bytes.
std::vector<std::string> sorted_class_names(std::vector<std::string> names);

}  // namespace fathom
