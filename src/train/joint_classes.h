// The classes of a run that learns from several data sets: all that any of them has.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace fathom {

/// What one data set calls its classes, each once.
struct ClassSet {
  std::string path;
  std::vector<std::string> names;
};

/// Errors (kData): one set numbers its classes and another names them, so that a class may go by both.
void check_class_names(const std::vector<ClassSet>& sets);

/// Those of `names` that differ from an earlier one by upper and lower case or by zeros before a number alone
/// ("Cat" after "cat", "07" after "7"), each behind that one.
std::vector<std::pair<std::string, std::string>> near_class_names(const std::vector<std::string>& names);

/// Says in the log how many of `joint`, the classes of all, each set has, and warns of names that are hardly
/// meant as two. Nothing where there is one set alone.
void report_classes(const std::vector<ClassSet>& sets, const std::vector<std::string>& joint);

}  // namespace fathom
