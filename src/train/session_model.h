// A module with its first weights on its device.
#pragma once

#include <torch/nn/module.h>

#include "models/model_folder.h"
#include "tensor/device_runtime.h"
#include "train/recipe.h"

namespace fathom {

/// Gives `module` the recipe's first weights (from the seed, or those of `init_from`), type and device.
/// Errors (kCheckpoint): weights in `init_from` of another kind, name or shape.
void place_model(torch::nn::Module& module, ModelKind kind, const RecipeConfig& recipe, at::Device device);

}  // namespace fathom
