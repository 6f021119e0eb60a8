#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>

#include "kernels/layer_norm.h"

namespace fathom::kernels::layer_norm_ref {

std::tuple<at::Tensor, at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& weight,
                                                       const at::Tensor& bias, double eps) {
  return at::native_layer_norm(x, weight.sizes(), weight.to(x.scalar_type()), bias.to(x.scalar_type()), eps);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& x,
                                                        const at::Tensor& weight, const at::Tensor& bias,
                                                        const at::Tensor& mean, const at::Tensor& scale) {
  const auto type = x.scalar_type();
  auto [grad_x, grad_weight, grad_bias] = at::native_layer_norm_backward(
      grad.contiguous(), x, weight.sizes(), mean, scale, weight.to(type), bias.to(type), {true, true, true});
  return {grad_x, grad_weight.to(weight.scalar_type()), grad_bias.to(bias.scalar_type())};
}

}  // namespace fathom::kernels::layer_norm_ref
