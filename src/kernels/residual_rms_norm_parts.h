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

/// Sum, norm, and 1 / root mean square of each row.
inline Three forward(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight, double eps) {
  static const auto norm = find_op<Pair(const at::Tensor&, const at::Tensor&, double)>("fathom::rms_norm");
  auto sum = at::add(x, branch);
  auto [y, scale] = norm.call(sum, weight.to(sum.scalar_type()), eps);
  return {std::move(sum), std::move(y), std::move(scale)};
}

/// Gradients of the sum and the weight.
inline Pair backward(const std::optional<at::Tensor>& grad_sum, const at::Tensor& grad, const at::Tensor& sum,
                     const at::Tensor& weight, const at::Tensor& scale) {
  static const auto norm =
      find_op<Pair(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
          "fathom::rms_norm_backward");
  const auto [grad_x, grad_weight] = norm.call(grad, sum, weight.to(sum.scalar_type()), scale);
  return {grad_sum ? at::add(*grad_sum, grad_x) : grad_x, grad_weight.to(weight.scalar_type())};
}

}  // namespace fathom::kernels::residual_rms_norm_parts
