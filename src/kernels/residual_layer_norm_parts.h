// `residual_layer_norm` by the operations that it stands for: what runs where no kernel takes it. Header
// only, since the plug-in links no object of ours.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>

#include <optional>
#include <tuple>
#include <utility>

#include "kernels/call.h"
#include "kernels/scaled_sum.h"

namespace fathom::kernels::residual_layer_norm_parts {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Forward = Four(const at::Tensor& x, const at::Tensor& branch, const std::optional<at::Tensor>& scale_B,
                     const at::Tensor& weight, const at::Tensor& bias, double eps);
using Backward = Four(const std::optional<at::Tensor>& grad_sum, const at::Tensor& grad,
                      const at::Tensor& sum, const std::optional<at::Tensor>& scale_B,
                      const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean,
                      const at::Tensor& scale);

/// The gradient of a branch from that of the sum; empty where it is the same.
inline at::Tensor branch_gradient(const at::Tensor& grad, const std::optional<at::Tensor>& scale_B) {
  return scale_B ? at::mul(grad, by_sample(*scale_B, grad)) : at::empty({0}, grad.options());
}

/// Sum, norm, and mean and 1 / deviation of each row.
inline Four forward(const at::Tensor& x, const at::Tensor& branch, const std::optional<at::Tensor>& scale_B,
                    const at::Tensor& weight, const at::Tensor& bias, double eps) {
  static const auto norm =
      find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>("fathom::layer_norm");
  auto sum = scaled_sum(x, branch, scale_B);
  auto [y, mean, scale] = norm.call(sum, weight, bias, eps);
  return {std::move(sum), std::move(y), std::move(mean), std::move(scale)};
}

/// Gradients of the sum, of the branch (empty where it is the same), weight and bias.
inline Four backward(const std::optional<at::Tensor>& grad_sum, const at::Tensor& grad, const at::Tensor& sum,
                     const std::optional<at::Tensor>& scale_B, const at::Tensor& weight,
                     const at::Tensor& bias, const at::Tensor& mean, const at::Tensor& scale) {
  static const auto norm =
      find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&, const at::Tensor&)>("fathom::layer_norm_backward");
  auto [grad_x, grad_weight, grad_bias] = norm.call(grad, sum, weight, bias, mean, scale);
  if (grad_sum) grad_x = at::add(*grad_sum, grad_x);
  auto grad_branch = branch_gradient(grad_x, scale_B);
  return {std::move(grad_x), std::move(grad_branch), std::move(grad_weight), std::move(grad_bias)};
}

}  // namespace fathom::kernels::residual_layer_norm_parts
