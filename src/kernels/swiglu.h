// y = silu(gate) · up, on gate and up packed behind each other. Source: Shazeer, "GLU variants improve
// transformer", 2020.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

/// [..., 2M] → [..., M]; the first half of the last dimension is the gate. Nothing but the input is kept for
/// the backward pass.
at::Tensor swiglu(const at::Tensor& gate_up);

namespace swiglu_ref {
at::Tensor forward(const at::Tensor& gate_up);
at::Tensor backward(const at::Tensor& grad, const at::Tensor& gate_up);
}  // namespace swiglu_ref

}  // namespace fathom::kernels
