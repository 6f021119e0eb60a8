#include "train/joint_classes.h"

#include <algorithm>
#include <map>
#include <ranges>

#include "base/error.h"
#include "base/log.h"
#include "data/readers/class_names.h"

namespace fathom {
namespace {

bool is_number(const std::string& name) {
  return class_number(name).has_value();
}

/// Equal for names that are hardly meant as two.
std::string loosely(std::string name) {
  if (const auto number = class_number(name)) return std::to_string(*number);
  for (char& letter : name)
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  return name;
}

}  // namespace

void check_class_names(const std::vector<ClassSet>& sets) {
  const ClassSet *numbered = nullptr, *named = nullptr;
  for (const ClassSet& set : sets) {
    if (set.names.empty()) continue;
    if (std::all_of(set.names.begin(), set.names.end(), is_number)) numbered = &set;
    if (std::none_of(set.names.begin(), set.names.end(), is_number)) named = &set;
  }
  if (numbered && named)
    fail(
        ErrorKind::kData,
        "data.mix: {} numbers its classes (\"{}\") and {} names them (\"{}\"): give both the same labels, or "
        "all of them in model.classes",
        numbered->path, numbered->names.front(), named->path, named->names.front());
}

std::vector<std::pair<std::string, std::string>> near_class_names(const std::vector<std::string>& names) {
  std::map<std::string, std::string> first;
  std::vector<std::pair<std::string, std::string>> near;
  for (const std::string& name : names) {
    const auto [place, is_new] = first.try_emplace(loosely(name), name);
    if (!is_new && place->second != name) near.emplace_back(place->second, name);
  }
  return near;
}

void report_classes(const std::vector<ClassSet>& sets, const std::vector<std::string>& joint) {
  if (sets.size() < 2) return;
  for (const ClassSet& set : sets)
    log::info("classes: {} of the {} are in {}", set.names.size(), joint.size(), set.path);
  const auto near = near_class_names(joint);
  for (const auto& [one, other] : near | std::views::take(20))
    log::warning("classes: \"{}\" and \"{}\" are learned as two; equal labels would make them one", one,
                 other);
  if (near.size() > 20) log::warning("classes: and {} more such pairs", near.size() - 20);
}

}  // namespace fathom
