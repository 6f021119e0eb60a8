// softmax(scale · scores + bias + mask) over windows, with the gradient of the bias. The step between the two
// products of window attention. N windows of all images, W windows of one image, H heads, T places.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace fathom::kernels {

/// `scores`: [N, H, T, T]; `bias_HTT`: [H, T, T]; `mask_WTT`: [W, T, T] added to window n mod W, or
/// undefined; it has no gradient. All of one type. Result: [N, H, T, T].
at::Tensor window_softmax(const at::Tensor& scores, const at::Tensor& bias_HTT, const at::Tensor& mask_WTT,
                          double scale);

namespace window_softmax_ref {
at::Tensor forward(const at::Tensor& scores, const at::Tensor& bias_HTT,
                   const std::optional<at::Tensor>& mask_WTT, double scale);
/// Gradients of scores and bias, from the result `p`.
std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& p, double scale);
}  // namespace window_softmax_ref

}  // namespace fathom::kernels
