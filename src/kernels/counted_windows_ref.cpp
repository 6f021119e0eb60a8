#include "kernels/counted_windows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "kernels/counted_rows_ref.h"
#include "kernels/shifted_window_attention.h"

namespace fathom::kernels {
namespace counted_windows_ref {
namespace {

using counted_rows_ref::count_of;
using counted_rows_ref::places;
using counted_rows_ref::with_room;

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

at::Tensor window_means(const at::Tensor& x, int64_t side, int64_t shift) {
  return window_ref::partition(x, x.size(1), x.size(2), side, shift).mean(2);
}

Three window_rows(const at::Tensor& window_slot, const at::Tensor& start, const Optional& used,
                  int64_t height, int64_t width, int64_t side, int64_t shift) {
  const int64_t images = start.numel() - 1, places = side * side;
  const auto offset_T = at::arange(places, window_slot.options());
  const auto spread = [&](const at::Tensor& slot) {  // of windows, to their places
    const auto slot_1 = slot.unsqueeze(1);
    return at::where(slot_1.ge(0), slot_1 * places + offset_T, slot_1);
  };
  const auto slot_BWT = spread(window_slot).view({images, -1, places, 1});
  const auto slot_N = window_ref::merge(slot_BWT, height, width, side, shift).flatten().contiguous();
  auto place_N = at::zeros_like(slot_N);
  const auto own_n = slot_N.ge(0).nonzero().squeeze(1);
  place_N.index_copy_(0, slot_N.index_select(0, own_n).to(at::kLong), own_n.to(at::kInt));
  const auto last = (used ? *used : start).slice(0, -1);
  return {place_N, slot_N, (at::cat({start, last}) * places).to(at::kInt)};
}

/// Rows [N, D] of places, as the maps that they are of: [B, height, width, D], zeros elsewhere.
at::Tensor on_maps(const at::Tensor& rows, const at::Tensor& place_n, int64_t height, int64_t width) {
  auto map = at::zeros_like(rows);
  map.index_copy_(0, place_n, rows.narrow(0, 0, place_n.numel()));
  return map.view({-1, height, width, rows.size(1)});
}

at::Tensor rows_of(const at::Tensor& map, const at::Tensor& place_n) {
  const auto all = map.flatten(0, 2);
  return with_room(all.index_select(0, place_n), all.size(0));
}

at::Tensor counted_window_attention(const at::Tensor& qkv, const at::Tensor& bias_HTT,
                                    const at::Tensor& place_N, const at::Tensor& start, int64_t height,
                                    int64_t width, int64_t side, int64_t shift) {
  const auto place_n = places(place_N, start);
  return rows_of(
      shifted_window_attention_ref::forward(on_maps(qkv, place_n, height, width), bias_HTT, side, shift),
      place_n);
}

/// Windows that are not active have no gradient from above, hence none for what they share.
Two counted_window_attention_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                      const at::Tensor& bias_HTT, const at::Tensor& place_N,
                                      const at::Tensor& start, int64_t height, int64_t width, int64_t side,
                                      int64_t shift) {
  const auto place_n = places(place_N, start);
  const auto [grad_qkv, grad_bias] = shifted_window_attention_ref::backward(
      on_maps(grad, place_n, height, width), on_maps(qkv, place_n, height, width), bias_HTT, side, shift);
  return {rows_of(grad_qkv, place_n), grad_bias};
}

at::Tensor window_score_grad(const at::Tensor& brought, const at::Tensor& score, const Optional& multiplier,
                             double share, double explore, const at::Tensor& slot, const at::Tensor& start) {
  const auto of_window_N = brought.view({slot.numel(), -1}).sum(1);
  auto gain_N = of_window_N.index_select(0, slot.clamp_min(0).to(at::kLong));
  gain_N = at::where(slot.ge(count_of(start)), gain_N / explore, gain_N).masked_fill(slot.lt(0), 0);
  if (multiplier) gain_N = gain_N + multiplier->to(gain_N.scalar_type()) * share;
  const auto p = at::sigmoid(score);
  return gain_N.view_as(p) * p * (1 - p);
}

}  // namespace
}  // namespace counted_windows_ref

TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("window_means", counted_windows_ref::window_means);
  library.impl("window_rows", counted_windows_ref::window_rows);
  library.impl("counted_window_attention", counted_windows_ref::counted_window_attention);
  library.impl("counted_window_attention_backward", counted_windows_ref::counted_window_attention_backward);
  library.impl("window_score_grad", counted_windows_ref::window_score_grad);
}

}  // namespace fathom::kernels
