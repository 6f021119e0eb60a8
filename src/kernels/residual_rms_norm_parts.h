// `residual_rms_norm` by the operations that it stands for: what runs where no kernel takes it. Header only,
// since the plug-in links no object of ours.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>

#include <optional>
#include <tuple>
#include <utility>

#include "kernels/call.h"

namespace fathom::kernels::residual_rms_norm_parts {

using Pair = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// Sum, norm (with `to_half` in FP16: saturated, and what saturates is added to `saturated`), and 1 / root
/// mean square of each row.
inline Three forward(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight, double eps,
                     bool to_half, const std::optional<at::Tensor>& saturated) {
  static const auto norm = find_op<Pair(const at::Tensor&, const at::Tensor&, double)>("fathom::rms_norm");
  static const auto cast =
      find_op<at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&)>("fathom::saturated_half");
  auto sum = at::add(x, branch);
  const auto rounded = weight.to(sum.scalar_type());
  if (to_half) {
    auto [y, scale] = norm.call(sum.to(at::kFloat), rounded.to(at::kFloat), eps);
    return {std::move(sum), cast.call(y, saturated), std::move(scale)};
  }
  auto [y, scale] = norm.call(sum, rounded, eps);
  return {std::move(sum), std::move(y), std::move(scale)};
}

/// Gradients of the sum, of the branch (the same, or with `half_branch` in FP16) and of the weight.
inline Three backward(const std::optional<at::Tensor>& grad_sum, const at::Tensor& grad,
                      const at::Tensor& sum, const at::Tensor& weight, const at::Tensor& scale,
                      bool half_branch) {
  static const auto norm =
      find_op<Pair(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
          "fathom::rms_norm_backward");
  const auto [grad_x, grad_weight] = norm.call(grad, sum, weight.to(sum.scalar_type()), scale);
  const auto whole = grad_sum ? at::add(*grad_sum, grad_x) : grad_x;
  return {whole, half_branch ? whole.to(at::kHalf) : whole, grad_weight.to(weight.scalar_type())};
}

}  // namespace fathom::kernels::residual_rms_norm_parts
