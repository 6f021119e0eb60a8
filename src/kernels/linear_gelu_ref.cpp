#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/sum.h>

#include "kernels/linear_gelu.h"

namespace fathom::kernels::linear_gelu_ref {

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& weight,
                                           const at::Tensor& bias, bool keep) {
  auto inner = at::linear(x, weight, bias);
  auto y = at::gelu(inner);
  return {std::move(y), keep ? std::move(inner) : at::empty({0}, x.options())};
}

std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& x) {
  auto grad_x = at::gelu_backward(grad, x);
  const auto wide = c10::promoteTypes(x.scalar_type(), at::kFloat);
  auto sum = at::sum(grad_x.reshape({-1, x.size(-1)}), {0}, /*keepdim=*/false, wide);
  return {std::move(grad_x), std::move(sum)};
}

}  // namespace fathom::kernels::linear_gelu_ref
