// `merged_layer_norm` by the operations that it stands for: what runs where no kernel takes it. Header only,
// since the plug-in links no object of ours.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <utility>

#include "kernels/residual_layer_norm_parts.h"

namespace fathom::kernels::merged_layer_norm_parts {

using residual_layer_norm_parts::Four;
using residual_layer_norm_parts::Three;
using Forward = Four(const at::Tensor& x, const std::optional<at::Tensor>& branch,
                     const std::optional<at::Tensor>& scale_B, const at::Tensor& weight,
                     const at::Tensor& bias, double eps, bool learns);
using Backward = Four(const at::Tensor& grad, const at::Tensor& merged,
                      const std::optional<at::Tensor>& scale_B, const at::Tensor& weight,
                      const at::Tensor& bias, const at::Tensor& mean, const at::Tensor& scale);

/// [B, height, width, D] → [B, height/2, width/2, 4·D].
inline at::Tensor merge(const at::Tensor& x) {
  const int64_t rows = x.size(1) / 2, columns = x.size(2) / 2;
  return x.reshape({x.size(0), rows, 2, columns, 2, x.size(3)})
      .permute({0, 1, 3, 4, 2, 5})
      .reshape({x.size(0), rows, columns, 4 * x.size(3)});
}

/// And back.
inline at::Tensor split(const at::Tensor& merged) {
  const int64_t rows = merged.size(1), columns = merged.size(2), dim = merged.size(3) / 4;
  return merged.reshape({merged.size(0), rows, columns, 2, 2, dim})
      .permute({0, 1, 4, 2, 3, 5})
      .reshape({merged.size(0), 2 * rows, 2 * columns, dim});
}

/// The merged sum (for the backward pass: may be empty where nothing learns), its norm, and mean and
/// 1 / deviation of each row.
inline Four forward(const at::Tensor& x, const std::optional<at::Tensor>& branch,
                    const std::optional<at::Tensor>& scale_B, const at::Tensor& weight,
                    const at::Tensor& bias, double eps, bool) {
  static const auto norm =
      find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>("fathom::layer_norm");
  auto merged = merge(branch ? scaled_sum(x, *branch, scale_B) : x);
  auto [y, mean, scale] = norm.call(merged, weight, bias, eps);
  return {std::move(merged), std::move(y), std::move(mean), std::move(scale)};
}

/// Gradients of the sum before it was merged, of the branch (empty where it is the same), weight and bias.
inline Four backward(const at::Tensor& grad, const at::Tensor& merged,
                     const std::optional<at::Tensor>& scale_B, const at::Tensor& weight,
                     const at::Tensor& bias, const at::Tensor& mean, const at::Tensor& scale) {
  static const auto norm =
      find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&, const at::Tensor&)>("fathom::layer_norm_backward");
  auto [grad_merged, grad_weight, grad_bias] = norm.call(grad, merged, weight, bias, mean, scale);
  auto grad_x = split(grad_merged);
  auto grad_branch = residual_layer_norm_parts::branch_gradient(grad_x, scale_B);
  return {std::move(grad_x), std::move(grad_branch), std::move(grad_weight), std::move(grad_bias)};
}

}  // namespace fathom::kernels::merged_layer_norm_parts
