// Settings of gates that a recipe gives and that change nothing in it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "train/recipe.h"

namespace fathom {

/// Settings that change nothing, each with the reason.
class IdleSettings {
 public:
  explicit IdleSettings(std::vector<std::string> so_far = {}) : found_(std::move(so_far)) {}
  /// `idle`: whether the setting, which is given, changes nothing.
  void add(bool idle, const std::string& setting, const std::string& why) {
    if (idle) found_.push_back(setting + ": " + why);
  }
  std::vector<std::string> take() { return std::move(found_); }

 private:
  std::vector<std::string> found_;
};

/// Those that differ from their defaults, each with the reason: "model.gate.inner: kind = \"random\" has no
/// bottleneck". They are no errors, since arms of a comparison differ in the kind alone.
std::vector<std::string> idle_gate_settings(const RecipeConfig& recipe);

}  // namespace fathom
