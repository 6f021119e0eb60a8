#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sum.h>

#include <cmath>
#include <vector>

#include "kernels/shifted_window_attention.h"
#include "kernels/window_seam.h"

namespace fathom::kernels::shifted_window_attention_ref {
namespace {

/// kSeamScore between places of a window that the shift joined, 0 elsewhere: [W, 1, T, T].
at::Tensor seam_mask(const WindowShape& shape, const at::TensorOptions& options) {
  const auto region = [&](int64_t length) {
    const auto position = at::arange(length, options.dtype(at::kLong));
    return position.ge(length - shape.side).to(at::kLong) + position.ge(length - shape.shift).to(at::kLong);
  };
  const auto map = region(shape.height).unsqueeze(1) * 3 + region(shape.width).unsqueeze(0);
  const auto windows = window_ref::partition(map.view({1, shape.height, shape.width, 1}), shape.height,
                                             shape.width, shape.side, 0)
                           .view({shape.count(), shape.side * shape.side});
  return windows.unsqueeze(1).ne(windows.unsqueeze(2)).to(options.dtype()).mul(kSeamScore).unsqueeze(1);
}

/// Queries, keys and values in windows, [B, W, H, T, E] each, and the probabilities, [B, W, H, T, T].
struct Parts {
  std::vector<at::Tensor> qkv;
  at::Tensor p;
  double scale;
};

Parts make_parts(const at::Tensor& qkv, const at::Tensor& bias_HTT, const WindowShape& shape) {
  const int64_t heads = bias_HTT.size(0), size = qkv.size(3) / 3 / heads;
  Parts parts = {.scale = 1.0 / std::sqrt(size)};
  parts.qkv = window_ref::partition(qkv, shape.height, shape.width, shape.side, shape.shift)
                  .view({qkv.size(0), shape.count(), shape.side * shape.side, 3, heads, size})
                  .permute({3, 0, 1, 4, 2, 5})
                  .unbind(0);
  auto scores =
      at::matmul(parts.qkv[0], parts.qkv[1].transpose(-1, -2)) * parts.scale + bias_HTT.to(qkv.scalar_type());
  if (shape.shift > 0) scores = scores + seam_mask(shape, qkv.options());
  parts.p = at::softmax(scores, -1);
  return parts;
}

}  // namespace

at::Tensor forward(const at::Tensor& qkv, const at::Tensor& bias_HTT, int64_t side, int64_t shift) {
  const WindowShape shape = {qkv.size(1), qkv.size(2), side, shift};
  const Parts parts = make_parts(qkv, bias_HTT, shape);
  const auto out = at::matmul(parts.p, parts.qkv[2]).transpose(2, 3).flatten(3);
  return window_ref::merge(out, shape.height, shape.width, side, shift);
}

std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& qkv,
                                            const at::Tensor& bias_HTT, int64_t side, int64_t shift) {
  const WindowShape shape = {qkv.size(1), qkv.size(2), side, shift};
  const Parts parts = make_parts(qkv, bias_HTT, shape);
  const int64_t heads = bias_HTT.size(0), places = side * side;
  const auto grad_out = window_ref::partition(grad, shape.height, shape.width, side, shift)
                            .view({qkv.size(0), shape.count(), places, heads, -1})
                            .transpose(2, 3);
  const auto grad_p = at::matmul(grad_out, parts.qkv[2].transpose(-1, -2));
  const auto grad_scores = parts.p * (grad_p - (grad_p * parts.p).sum(-1, true));
  const auto grad_q = at::matmul(grad_scores, parts.qkv[1]) * parts.scale,
             grad_k = at::matmul(grad_scores.transpose(-1, -2), parts.qkv[0]) * parts.scale,
             grad_v = at::matmul(parts.p.transpose(-1, -2), grad_out);
  const auto rows = [](const at::Tensor& x) { return x.transpose(2, 3).flatten(3); };
  return {window_ref::merge(at::cat({rows(grad_q), rows(grad_k), rows(grad_v)}, -1), shape.height,
                            shape.width, side, shift),
          at::sum(grad_scores, at::IntArrayRef{0, 1}).to(bias_HTT.scalar_type())};
}

}  // namespace fathom::kernels::shifted_window_attention_ref
