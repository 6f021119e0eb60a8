#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/chunk.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>

#include "kernels/swiglu.h"

namespace fathom::kernels::swiglu_ref {

at::Tensor forward(const at::Tensor& gate_up) {
  const auto parts = at::chunk(gate_up, 2, -1);
  return at::silu(parts[0]) * parts[1];
}

at::Tensor backward(const at::Tensor& grad, const at::Tensor& gate_up) {
  const auto parts = at::chunk(gate_up, 2, -1);
  return at::cat({at::silu_backward(grad * parts[1], parts[0]), grad * at::silu(parts[0])}, -1);
}

at::Tensor half(const at::Tensor& gate_up, const std::optional<at::Tensor>& saturated) {
  return saturated_half_ref::apply(forward(gate_up.to(at::kFloat)), saturated);
}

at::Tensor half_backward(const at::Tensor& grad, const at::Tensor& gate_up) {
  return backward(grad.to(at::kFloat), gate_up.to(at::kFloat)).to(at::kHalf);
}

}  // namespace fathom::kernels::swiglu_ref
