// `fp8_rms_norm` by the operations that it stands for: what runs where no kernel takes it. Header only, since
// the plug-in links no object of ours.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <utility>

#include "kernels/call.h"
#include "kernels/fp8_tiles.h"

namespace fathom::kernels::fp8_rms_norm_parts {

using MaybeTensor = std::optional<at::Tensor>;
using Six = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// What an FP8 form is to be (`Fp8Wish`), as ops are told.
struct Forms {
  at::ScalarType type;
  int64_t plain, turned;
  const MaybeTensor& beyond;

  fp8_tiles_ref::FourTensors of(const at::Tensor& x) const {
    static const auto op = find_op<fp8_tiles_ref::FourTensors(
        const at::Tensor&, at::ScalarType, int64_t, int64_t, const MaybeTensor&)>("fathom::fp8_tiles");
    return op.call(x.reshape({-1, x.size(-1)}), type, plain, turned, beyond);
  }
};

/// The sum (undefined without a branch), 1 / root mean square of each row, and the norm's forms.
inline Six forward(const at::Tensor& x, const MaybeTensor& branch, const at::Tensor& weight, double eps,
                   const Forms& forms) {
  using Two = std::tuple<at::Tensor, at::Tensor>;
  using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
  static const auto norm = find_op<Two(const at::Tensor&, const at::Tensor&, double)>("fathom::rms_norm");
  static const auto normed_sum =
      find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, bool,
                    const MaybeTensor&)>("fathom::residual_rms_norm");
  at::Tensor sum, y, scale;
  if (branch)
    std::tie(sum, y, scale) = normed_sum.call(x, *branch, weight, eps, false, std::nullopt);
  else
    std::tie(y, scale) = norm.call(x, weight.to(x.scalar_type()), eps);
  return std::tuple_cat(Two{std::move(sum), std::move(scale)}, forms.of(y));
}

/// What is kept of a forward pass.
struct Saved {
  const at::Tensor &sum, &weight, &scale;
};

/// Gradients of the sum and of the weight, and the first's forms.
inline Six backward(const MaybeTensor& grad_sum, const at::Tensor& grad, const Saved& saved,
                    const Forms& forms) {
  using Two = std::tuple<at::Tensor, at::Tensor>;
  using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
  static const auto op =
      find_op<Three(const MaybeTensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&, bool)>("fathom::residual_rms_norm_backward");
  auto [grad_x, same, grad_weight] = op.call(grad_sum, grad, saved.sum, saved.weight, saved.scale, false);
  auto narrow = forms.of(grad_x);
  return std::tuple_cat(Two{std::move(grad_x), std::move(grad_weight)}, std::move(narrow));
}

}  // namespace fathom::kernels::fp8_rms_norm_parts
