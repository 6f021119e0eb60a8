#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/floor_divide.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/xlogy.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>

#include "kernels/attention.h"
#include "kernels/counted_rows.h"
#include "kernels/rms_norm.h"
#include "kernels/rope_heads.h"
#include "kernels/swiglu.h"
#include "kernels/varlen_attention.h"

namespace fathom::kernels {
namespace counted_rows_ref {
namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

int64_t count_of(const at::Tensor& start_S1) {
  return start_S1.select(0, -1).item().toLong();
}

/// The first rows with what `used` holds, the others 0.
at::Tensor with_room(const at::Tensor& used, int64_t room) {
  return at::constant_pad_nd(used, {0, 0, 0, room - used.size(0)});
}

at::Tensor places(const at::Tensor& place_N, const at::Tensor& start_S1) {
  return place_N.narrow(0, 0, count_of(start_S1)).to(at::kLong);
}

at::Tensor causal_scores(const at::Tensor& both, const at::Tensor& shift, const at::Tensor& out_I,
                         const at::Tensor& bias, at::Tensor& sum_BI) {
  const int64_t inner = out_I.numel(), tokens = both.size(1);
  const auto shifted = both + shift.to(at::kFloat);
  const auto own = shifted.slice(2, 0, inner), sums = at::cumsum(shifted.slice(2, inner), 1);
  sum_BI.copy_(sums.select(1, tokens - 1).view_as(sum_BI));
  const auto count_T1 = at::arange(1, tokens + 1, both.options()).unsqueeze(1);
  return at::matmul(at::gelu(own + sums / count_T1), out_I.to(at::kFloat)) + bias.to(at::kFloat);
}

Three chosen_rows(const at::Tensor& active_BT, const Optional& counts) {
  const int64_t room = active_BT.numel();
  if (counts) {
    counts->select(0, 0).add_(active_BT.sum());
    counts->select(0, 1).add_(room);
  }
  const auto options = active_BT.options().dtype(at::kInt);
  const auto used = at::nonzero(active_BT.flatten()).squeeze(1);
  auto slot_N = at::full({room}, -1, options);
  slot_N.index_copy_(0, used, at::arange(used.size(0), options));
  auto start_S1 = at::constant_pad_nd(at::cumsum(active_BT.sum(1), 0), {1, 0}).to(at::kInt);
  return {at::constant_pad_nd(used, {0, room - used.size(0)}).to(at::kInt), slot_N, start_S1};
}

Four scored_rows(const at::Tensor& score_BT, at::Tensor& counts) {
  const auto p = at::sigmoid(score_BT), active_BT = p.gt(0.5);
  const auto entropy = -(at::xlogy(p, p) + at::xlogy(1 - p, 1 - p)).sum(at::kDouble) / std::log(2.0);
  counts.select(0, 2).add_(entropy);
  auto [place_N, slot_N, start_S1] = chosen_rows(active_BT, counts);
  return {place_N, slot_N, start_S1, active_BT};
}

at::Tensor gathered_rms_norm(const at::Tensor& x_BTD, const at::Tensor& weight, double eps,
                             const at::Tensor& place_N, const at::Tensor& start_S1) {
  const auto rows = x_BTD.flatten(0, 1).index_select(0, places(place_N, start_S1));
  return with_room(std::get<0>(rms_norm_ref::forward(rows, weight, eps)), place_N.numel());
}

Two added_rms_norm(const at::Tensor& x_BTD, const at::Tensor& y, const at::Tensor& weight, double eps,
                   const at::Tensor& place_N, const at::Tensor& start_S1) {
  const int64_t room = place_N.numel();
  const auto place_n = places(place_N, start_S1);
  const auto sum = x_BTD.flatten(0, 1).index_select(0, place_n) + y.narrow(0, 0, place_n.numel());
  return {with_room(sum, room), with_room(std::get<0>(rms_norm_ref::forward(sum, weight, eps)), room)};
}

at::Tensor counted_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& start_S1) {
  return with_room(at::matmul(x.narrow(0, 0, count_of(start_S1)), weight.t()), x.size(0));
}

at::Tensor counted_swiglu(const at::Tensor& gate_up, const at::Tensor& start_S1) {
  return with_room(swiglu_ref::forward(gate_up.narrow(0, 0, count_of(start_S1))), gate_up.size(0));
}

void counted_rope(at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, int64_t heads,
                  int64_t kv_heads, const at::Tensor& place_N, const at::Tensor& start_S1,
                  const Optional& keys, const Optional& values) {
  const auto place_n = places(place_N, start_S1);
  const int64_t used = place_n.numel(), sequences = start_S1.numel() - 1;
  const auto position_n = at::remainder(place_n, place_N.numel() / sequences);
  auto rows = qkv.narrow(0, 0, used);
  const auto [q, k, v] = rope_heads_ref::forward(rows.unsqueeze(0), cos_TF.index_select(0, position_n),
                                                 sin_TF.index_select(0, position_n), heads, kv_heads);
  rows.copy_(at::cat({q, k, v}, 1).squeeze(0).transpose(0, 1).flatten(1));
  if (!keys) return;
  const auto sequence_n = at::floor_divide(place_n, place_N.numel() / sequences);
  const auto slot_n = at::arange(used, place_n.options()) - start_S1.index_select(0, sequence_n);
  keys->transpose(1, 2).index_put_({sequence_n, slot_n}, k.squeeze(0).transpose(0, 1));
  values->transpose(1, 2).index_put_({sequence_n, slot_n}, v.squeeze(0).transpose(0, 1));
}

at::Tensor counted_attention(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t /*tokens*/,
                             const at::Tensor& start_S1) {
  const int64_t used = count_of(start_S1);
  const int64_t head_size = qkv.size(1) / (heads + 2 * kv_heads);
  const auto all = qkv.narrow(0, 0, used).view({used, heads + 2 * kv_heads, head_size}).transpose(0, 1);
  const VarlenLayout layout = {.start_S1 = start_S1.to(at::kCPU, at::kLong), .key_N = {}, .causal = true};
  const auto y_HNE = varlen_attention(all.narrow(0, 0, heads), all.narrow(0, heads, kv_heads),
                                      all.narrow(0, heads + kv_heads, kv_heads), layout);
  return with_room(y_HNE.transpose(0, 1).flatten(1), qkv.size(0));
}

at::Tensor merged_rows(const at::Tensor& x_BTD, const at::Tensor& h, const at::Tensor& y,
                       const at::Tensor& slot_N) {
  const auto place_n = at::nonzero(slot_N.ge(0)).squeeze(1);
  const auto slot_n = slot_N.index_select(0, place_n);
  const auto rows = h.index_select(0, slot_n) + y.index_select(0, slot_n);
  return x_BTD.flatten(0, 1).index_copy(0, place_n, rows).view_as(x_BTD);
}

}  // namespace
}  // namespace counted_rows_ref

TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("causal_scores", counted_rows_ref::causal_scores);
  library.impl("scored_rows", counted_rows_ref::scored_rows);
  library.impl("chosen_rows", counted_rows_ref::chosen_rows);
  library.impl("gathered_rms_norm", counted_rows_ref::gathered_rms_norm);
  library.impl("added_rms_norm", counted_rows_ref::added_rms_norm);
  library.impl("counted_linear", counted_rows_ref::counted_linear);
  library.impl("counted_swiglu", counted_rows_ref::counted_swiglu);
  library.impl("counted_rope_", counted_rows_ref::counted_rope);
  library.impl("counted_attention", counted_rows_ref::counted_attention);
  library.impl("merged_rows", counted_rows_ref::merged_rows);
}

}  // namespace fathom::kernels
