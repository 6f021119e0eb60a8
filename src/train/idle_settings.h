// Settings that a recipe gives and that change nothing in it.
#pragma once

#include <string>
#include <vector>

#include "train/recipe.h"

namespace fathom {

/// Those that differ from their defaults, each with the reason: "lora.patterns: lora.rank = 0 adds no
/// adapters"; those of gates too (`gate_settings.h`). They are no errors, since arms of a comparison differ
/// in one switch alone.
std::vector<std::string> idle_settings(const RecipeConfig& recipe);

}  // namespace fathom
