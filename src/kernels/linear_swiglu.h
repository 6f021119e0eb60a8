// silu(x gateᵀ) · (x upᵀ): the first half of a feed-forward layer.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/linear.h"

namespace fathom::kernels {

/// `swiglu(linear(x, gate_up, {}, types), types.products)`, but where nothing learns and a Hopper GPU has
/// many rows the product itself writes the result, which is then rounded once. `x`: [..., D]; `gate_up`: [2M,
/// D], gate first.
at::Tensor linear_swiglu(const at::Tensor& x, const at::Tensor& gate_up, const LinearTypes& types = {});

}  // namespace fathom::kernels
