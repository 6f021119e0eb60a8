// A module's parameters as a list.
#pragma once

#include <torch/nn/module.h>

#include "train/optimizer.h"

namespace fathom {

/// In the order of registration, each once, with full names.
NamedParameters module_parameters(const torch::nn::Module& module);

}  // namespace fathom
