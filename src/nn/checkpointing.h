// Activation checkpointing: memory for time. Source: Chen et al., "Training deep nets with sublinear memory
// cost", 2016.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <functional>
#include <vector>

namespace fathom {

/// `forward(x)`, of which only `x` is kept: the backward pass computes the inside again. `module` owns all
/// parameters that `forward` uses; their gradients arrive through the graph, so what waits for accumulated
/// gradients (data parallel's buckets) is called once, as ever.
/// `forward` must be a pure function of `x` and the parameters (keyed dropout is). Without gradients in use
/// it is called directly.
at::Tensor checkpoint(const torch::nn::Module& module,
                      const std::function<at::Tensor(const at::Tensor&)>& forward, const at::Tensor& x);

}  // namespace fathom
