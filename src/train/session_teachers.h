// The trained dual towers that a contrastive recipe learns from.
#pragma once

#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "models/dual_tower/model.h"
#include "train/session.h"

namespace fathom {

/// Their shapes, by their folders' configurations alone. Errors: kCheckpoint for what is no dual tower,
/// kConfig for one that takes other pictures than the recipe's model, or shorter texts.
std::vector<DualTowerConfig> teacher_shapes(const RecipeConfig& recipe);

/// Them, on the session's device; where only names are wanted, stand-ins. Errors: the same; kConfig for one
/// that reads texts as other tokens than `tokenizer` and the recipe's inputs make of them.
std::vector<DualTower> load_teachers(const RecipeConfig& recipe, const SessionPlace& place,
                                     const Tokenizer& tokenizer);

}  // namespace fathom
