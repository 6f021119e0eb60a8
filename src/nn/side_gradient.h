// A gradient that reaches a tensor beside the one that the objective sends it.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom {

/// `x`. In the backward pass `side` gets `gradient` (of its shape) as well, as if Σ side · gradient were
/// added to the objective: how a layer brings a penalty of its own without the task knowing. Source: the
/// auxiliary losses of mixtures of experts in Megatron-LM are attached likewise.
at::Tensor attach_gradient(const at::Tensor& x, const at::Tensor& side, const at::Tensor& gradient);

}  // namespace fathom
