#include "kernels/counted_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "kernels/counted_rows_ref.h"
#include "kernels/layer_norm.h"
#include "kernels/linear_gelu.h"

namespace fathom::kernels {
namespace counted_layers_ref {
namespace {

using counted_rows_ref::count_of;
using counted_rows_ref::places;
using counted_rows_ref::with_room;
using Two = std::tuple<at::Tensor, at::Tensor>;

at::Tensor in_use(const at::Tensor& x, const at::Tensor& start_S1) {
  return x.narrow(0, 0, count_of(start_S1));
}

at::Tensor gathered_layer_norm(const at::Tensor& x_BTD, const at::Tensor& weight, const at::Tensor& bias,
                               double eps, const at::Tensor& place_N, const at::Tensor& start_S1) {
  const auto rows = x_BTD.flatten(0, 1).index_select(0, places(place_N, start_S1));
  const auto type = rows.scalar_type();
  return with_room(std::get<0>(layer_norm_ref::forward(rows, weight.to(type), bias.to(type), eps)),
                   place_N.numel());
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const at::Tensor& start_S1, int64_t /*expected*/) {
  return with_room(at::addmm(bias, in_use(x, start_S1), weight.t()), x.size(0));
}

Two linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                const at::Tensor& start_S1, int64_t /*expected*/, bool keep) {
  const auto [y, inner] = linear_gelu_ref::forward(in_use(x, start_S1), weight, bias, keep);
  return {with_room(y, x.size(0)), keep ? with_room(inner, x.size(0)) : inner};
}

Two gathered_layer_norm_backward(const at::Tensor& grad, const at::Tensor& x_BTD, const at::Tensor& weight,
                                 double eps, at::Tensor& grad_BTD, const at::Tensor& place_N,
                                 const at::Tensor& start_S1) {
  const auto place_n = places(place_N, start_S1);
  const auto rows = x_BTD.flatten(0, 1).index_select(0, place_n);
  const auto own = weight.to(rows.scalar_type()), bias = at::zeros_like(own);
  const auto [y, mean, scale] = layer_norm_ref::forward(rows, own, bias, eps);
  const auto [grad_rows, grad_weight, grad_bias] =
      layer_norm_ref::backward(in_use(grad, start_S1), rows, own, bias, mean, scale);
  grad_BTD.view({place_N.numel(), -1}).index_add_(0, place_n, grad_rows);
  return {grad_weight, grad_bias};
}

Two gelu_backward(const at::Tensor& grad, const at::Tensor& inner, const at::Tensor& start_S1) {
  const auto [grad_inner, sum] = linear_gelu_ref::backward(in_use(grad, start_S1), in_use(inner, start_S1));
  return {with_room(grad_inner, grad.size(0)), sum};
}

at::Tensor column_sum(const at::Tensor& x, const at::Tensor& start_S1) {
  return in_use(x, start_S1).sum(0, /*keepdim=*/false, c10::promoteTypes(x.scalar_type(), at::kFloat));
}

}  // namespace
}  // namespace counted_layers_ref

TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("gathered_layer_norm", counted_layers_ref::gathered_layer_norm);
  library.impl("counted_linear_bias", counted_layers_ref::linear);
  library.impl("counted_linear_gelu", counted_layers_ref::linear_gelu);
  library.impl("gathered_layer_norm_backward_", counted_layers_ref::gathered_layer_norm_backward);
  library.impl("counted_gelu_backward", counted_layers_ref::gelu_backward);
  library.impl("counted_column_sum", counted_layers_ref::column_sum);
}

}  // namespace fathom::kernels
