// `residual_layer_norm` by the operations that it stands for: what runs where no kernel takes it. Header
// only, since the plug-in links no object of ours.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>

#include <optional>
#include <tuple>
#include <utility>

#include "kernels/call.h"

namespace fathom::kernels::residual_layer_norm_parts {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Forward = Four(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                     const at::Tensor& bias, double eps);
using Backward = Three(const std::optional<at::Tensor>& grad_sum, const at::Tensor& grad,
                       const at::Tensor& sum, const at::Tensor& weight, const at::Tensor& bias,
                       const at::Tensor& mean, const at::Tensor& scale);

/// Sum, norm, and mean and 1 / deviation of each row.
inline Four forward(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                    const at::Tensor& bias, double eps) {
  static const auto norm =
      find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>("fathom::layer_norm");
  auto sum = at::add(x, branch);
  auto [y, mean, scale] = norm.call(sum, weight, bias, eps);
  return {std::move(sum), std::move(y), std::move(mean), std::move(scale)};
}

/// Gradients of the sum, weight and bias.
inline Three backward(const std::optional<at::Tensor>& grad_sum, const at::Tensor& grad,
                      const at::Tensor& sum, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& mean, const at::Tensor& scale) {
  static const auto norm =
      find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&, const at::Tensor&)>("fathom::layer_norm_backward");
  auto [grad_x, grad_weight, grad_bias] = norm.call(grad, sum, weight, bias, mean, scale);
  return {grad_sum ? at::add(*grad_sum, grad_x) : grad_x, grad_weight, grad_bias};
}

}  // namespace fathom::kernels::residual_layer_norm_parts
