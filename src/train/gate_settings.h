// Settings of gates that a recipe gives and that change nothing in it.
#pragma once

#include <string>
#include <vector>

#include "train/recipe.h"

namespace fathom {

/// Those that differ from their defaults, each with the reason: "model.gate.inner: kind = \"random\" has no
/// bottleneck". They are no errors, since arms of a comparison differ in the kind alone.
std::vector<std::string> idle_gate_settings(const RecipeConfig& recipe);

}  // namespace fathom
