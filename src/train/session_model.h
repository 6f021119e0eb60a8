// A module with its first weights on its device.
#pragma once

#include <torch/nn/module.h>

#include <string>

#include "models/model_folder.h"
#include "tensor/device_runtime.h"
#include "train/initial_weights.h"
#include "train/recipe.h"

namespace fathom {

/// Gives `module` the recipe's first weights (from the seed, those of `init_from`, or what the rules of
/// `init` take from elsewhere), its adapters, type and device. The report is empty without rules. Errors:
/// kCheckpoint for weights in `init_from` of another kind, name or shape; those of `take_initial_weights` and
/// `add_adapters`.
InitReport place_model(torch::nn::Module& module, ModelKind kind, const RecipeConfig& recipe,
                       at::Device device, const std::string& tokenizer_json = {});

}  // namespace fathom
