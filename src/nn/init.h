// Initial weights: a pure function of (seed, parameter name), so they depend on no order, rank or device.
#pragma once

#include <torch/nn/module.h>

#include <cstdint>

namespace fathom {

/// Fills every parameter of `module` by the initialisation that its owner registered (`declare_init`).
void init_parameters(torch::nn::Module& module, int64_t seed);

}  // namespace fathom
