// y = silu(gate) · up, on gate and up packed behind each other. Source: Shazeer, "GLU variants improve
// transformer", 2020.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/product_type.h"

namespace fathom::kernels {

/// [..., 2M] → [..., M]; the first half of the last dimension is the gate. Nothing but the input is kept for
/// the backward pass. Where `products` casts states like `gate_up`, the result is an operand of theirs,
/// rounded once, saturated and counted; its gradient comes in the states' type, and goes back in FP16,
/// unsaturated, if what made `gate_up` takes it so.
at::Tensor swiglu(const at::Tensor& gate_up, const Products& products = {});

namespace swiglu_ref {
at::Tensor forward(const at::Tensor& gate_up);
at::Tensor backward(const at::Tensor& grad, const at::Tensor& gate_up);
/// The same in float32, written in FP16: saturated, and a gradient as it is.
at::Tensor half(const at::Tensor& gate_up, const std::optional<at::Tensor>& saturated);
at::Tensor half_backward(const at::Tensor& grad, const at::Tensor& gate_up);
}  // namespace swiglu_ref

}  // namespace fathom::kernels
