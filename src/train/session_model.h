// A module with its first weights on its device.
#pragma once

#include <torch/nn/module.h>

#include <string>

#include "models/model_folder.h"
#include "train/initial_weights.h"
#include "train/session.h"

namespace fathom {

/// Gives `module` the recipe's first weights (from the seed, those of `init_from`, or what the rules of
/// `init` take from elsewhere), its adapters, type and device. The report is empty without rules. Where only
/// names are wanted, `module` is narrowed: it gets its adapters, and what its weights would come from is
/// looked up by name. Errors: kCheckpoint for weights in `init_from` of another kind, name or shape; those of
/// `take_initial_weights` and `add_adapters`.
InitReport place_model(torch::nn::Module& module, ModelKind kind, const RecipeConfig& recipe,
                       const SessionPlace& place, const std::string& tokenizer_json = {});

}  // namespace fathom
