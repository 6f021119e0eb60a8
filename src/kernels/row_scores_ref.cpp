#include "kernels/row_scores.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <torch/library.h>

namespace fathom::kernels {
namespace row_scores_ref {
namespace {

using Optional = std::optional<at::Tensor>;

/// What a sum over each row's present tokens is multiplied with: 0 at padding, else 1 over their number.
at::Tensor token_shares(const at::Tensor& both, const Optional& present_BT) {
  const auto there_BT = present_BT ? present_BT->to(both.scalar_type())
                                   : at::ones({both.size(0), both.size(1)}, both.options());
  return (there_BT / there_BT.sum(1, /*keepdim=*/true).clamp_min(1)).unsqueeze(2);
}

/// What GELU is taken of.
at::Tensor hidden(const at::Tensor& both, const at::Tensor& shift, const at::Tensor& share_BT1,
                  const Optional& present_BT) {
  const int64_t inner = both.size(2) / 2;
  const auto shifted = both + shift.to(both.scalar_type());
  auto other = shifted.slice(2, inner);
  if (present_BT) other = other.masked_fill(present_BT->logical_not().unsqueeze(2), 0);
  return shifted.slice(2, 0, inner) + (other * share_BT1).sum(1, /*keepdim=*/true);
}

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& both, const at::Tensor& shift,
                                           const at::Tensor& out_I, const at::Tensor& bias,
                                           const Optional& present_BT) {
  const auto type = both.scalar_type();
  const auto h = hidden(both, shift, token_shares(both, present_BT), present_BT);
  return {at::matmul(at::gelu(h), out_I.to(type)) + bias.to(type), at::empty({0}, both.options())};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad_BT, const at::Tensor& both, const at::Tensor& /*sums*/, const at::Tensor& shift,
    const at::Tensor& out_I, const at::Tensor& scale, const Optional& present_BT, at::ScalarType grad_type) {
  const auto type = both.scalar_type();
  const auto share_BT1 = token_shares(both, present_BT);
  const auto h = hidden(both, shift, share_BT1, present_BT);
  const auto grad_BT1 = grad_BT.unsqueeze(2);
  const auto grad_own = at::gelu_backward(grad_BT1 * out_I.to(type), h);
  const auto grad_other = grad_own.sum(1, /*keepdim=*/true) * share_BT1;
  const auto grad_both = at::cat({grad_own, grad_other}, 2);
  return {(grad_both * scale.view({both.size(0), both.size(1), 1})).to(grad_type),
          grad_both.flatten(0, 1).sum(0), (grad_BT1 * at::gelu(h)).flatten(0, 1).sum(0),
          grad_BT.sum().view({1})};
}

}  // namespace
}  // namespace row_scores_ref

TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("row_scores", row_scores_ref::forward);
  library.impl("row_scores_backward", row_scores_ref::backward);
}

}  // namespace fathom::kernels
