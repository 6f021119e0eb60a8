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
#include <ATen/ops/ones.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/xlogy.h>
#include <torch/library.h>

#include <cmath>

#include "kernels/attention.h"
#include "kernels/call.h"
#include "kernels/counted_rows_ref.h"
#include "kernels/keyed_dropout.h"
#include "kernels/product_type.h"
#include "kernels/rms_norm.h"
#include "kernels/rope_heads.h"
#include "kernels/swiglu.h"
#include "tensor/random_keys.h"

namespace fathom::kernels {
namespace counted_rows_ref {

int64_t count_of(const at::Tensor& start_S1) {
  return start_S1.select(0, -1).item().toLong();
}

at::Tensor with_room(const at::Tensor& used, int64_t room) {
  return at::constant_pad_nd(used, {0, 0, 0, room - used.size(0)});
}

at::Tensor places(const at::Tensor& place_N, const at::Tensor& start_S1) {
  return place_N.narrow(0, 0, count_of(start_S1)).to(at::kLong);
}

PlacesInUse places_in_use(const at::Tensor& slot_N, const at::Tensor& start_S1) {
  const auto place_n = at::nonzero(slot_N.ge(0) & slot_N.lt(count_of(start_S1))).squeeze(1);
  return {place_n, slot_N.index_select(0, place_n).to(at::kLong)};
}

at::Tensor rows_seen(const at::Tensor& place_n, int64_t active, int64_t tokens, bool causal) {
  const auto row_n = at::arange(place_n.numel(), place_n.options());
  const auto sequence_n = at::floor_divide(place_n, tokens);
  const auto mine = [](const at::Tensor& x) { return x.unsqueeze(1); };
  auto sees = sequence_n.eq(mine(sequence_n)) & row_n.lt(active);
  if (causal) sees = sees & place_n.le(mine(place_n));
  return sees | row_n.eq(mine(row_n));
}

namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

/// Where no kernel is registered for the device.
bool counts_rows(const at::Tensor& /*x*/) {
  return false;
}

Three scorer_product(const at::Tensor& x_BTD, const at::Tensor& norm, const at::Tensor& project, double eps) {
  static const auto normed = find_op<Two(const at::Tensor&, const at::Tensor&, double)>("fathom::rms_norm");
  const auto [y_BTD, scale_BT1] = normed.call(x_BTD, norm, eps);
  const auto both = wide_product(y_BTD.flatten(0, 1), project.t());
  return {both.view({x_BTD.size(0), x_BTD.size(1), project.size(0)}), scale_BT1,
          at::empty({0}, both.options())};
}

at::Tensor causal_scores(const at::Tensor& both, const Optional& /*chunk_sums*/, const at::Tensor& shift,
                         const at::Tensor& out_I, const at::Tensor& bias, at::Tensor& sum_BI) {
  const int64_t inner = out_I.numel(), tokens = both.size(1);
  const auto type = both.scalar_type();
  const auto shifted = both + shift.to(type);
  const auto own = shifted.slice(2, 0, inner), sums = at::cumsum(shifted.slice(2, inner), 1);
  if (tokens > 0)
    sum_BI.copy_(sums.select(1, tokens - 1).view_as(sum_BI));
  else
    sum_BI.zero_();
  const auto count_T1 = at::arange(1, tokens + 1, both.options()).unsqueeze(1);
  return at::matmul(at::gelu(own + sums / count_T1), out_I.to(type)) + bias.to(type);
}

at::Tensor explored(const at::Tensor& active_BT, const Optional& present_BT, const at::Tensor& key_B,
                    int64_t stream, double explore) {
  const auto drawn_BT =
      keyed_uniform(key_B, {active_BT.size(1)}, stream).lt(explore) & active_BT.logical_not();
  return present_BT ? drawn_BT & *present_BT : drawn_BT;
}

Four choose_rows(const Optional& score_BT, const Optional& chosen_BT, const Optional& present_BT,
                 const Optional& counts, const Optional& key_B, int64_t stream, double explore) {
  const auto p = score_BT ? at::sigmoid(*score_BT) : at::Tensor();
  auto active_BT = chosen_BT ? *chosen_BT : p.gt(0.5);
  if (present_BT) active_BT = active_BT & *present_BT;
  if (counts) {
    counts->select(0, 0).add_(active_BT.sum());
    counts->select(0, 1).add_(present_BT ? present_BT->sum() : at::full({}, active_BT.numel(), at::kLong));
    if (p.defined()) {
      auto nats_BT = at::xlogy(p, p) + at::xlogy(1 - p, 1 - p);
      if (present_BT) nats_BT = nats_BT.masked_fill(present_BT->logical_not(), 0);
      counts->select(0, 2).sub_(nats_BT.sum(at::kDouble) / std::log(2.0));
    }
  }
  const auto options = active_BT.options().dtype(at::kInt);
  const auto row_of = [](const at::Tensor& mask) { return at::nonzero(mask.flatten()).squeeze(1); };
  auto used = row_of(active_BT);
  auto border_S1 = at::constant_pad_nd(at::cumsum(active_BT.sum(1), 0), {1, 0});
  if (key_B) used = at::cat({used, row_of(explored(active_BT, present_BT, *key_B, stream, explore))});
  const int64_t room = active_BT.numel(), count = used.numel();
  auto slot_N = at::full({room}, CountedSlots::kNoRow, options);
  if (present_BT) slot_N.masked_fill_(present_BT->logical_not().flatten(), CountedSlots::kPadding);
  slot_N.index_copy_(0, used, at::arange(count, options));
  return {at::constant_pad_nd(used, {0, room - count}).to(at::kInt), slot_N,
          at::constant_pad_nd(border_S1, {0, 1}, count).to(at::kInt), active_BT};
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

at::Tensor counted_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& start_S1,
                          int64_t /*expected*/) {
  return with_room(at::matmul(x.narrow(0, 0, count_of(start_S1)), weight.t()), x.size(0));
}

at::Tensor counted_swiglu(const at::Tensor& gate_up, const at::Tensor& start_S1) {
  return with_room(swiglu_ref::forward(gate_up.narrow(0, 0, count_of(start_S1))), gate_up.size(0));
}

std::tuple<at::Tensor, at::Tensor> counted_linear_swiglu(const at::Tensor& x, const at::Tensor& weight,
                                                         const at::Tensor& start_S1, int64_t expected,
                                                         bool keep) {
  auto gate_up = counted_linear(x, weight, start_S1, expected);
  auto y = counted_swiglu(gate_up, start_S1);
  return {std::move(y), keep ? std::move(gate_up) : gate_up.narrow(0, 0, 0)};
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

Three counted_attention(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, bool causal,
                        const at::Tensor& place_N, const at::Tensor& start_S1, const Optional& used_S1) {
  const auto place_n = places(place_N, used_S1 ? *used_S1 : start_S1);
  const int64_t used = place_n.numel(), all_heads = heads + 2 * kv_heads;
  const auto all = qkv.narrow(0, 0, used).view({used, all_heads, qkv.size(1) / all_heads}).transpose(0, 1);
  const auto part = [&](int64_t first, int64_t count) { return all.narrow(0, first, count).unsqueeze(0); };
  const auto sees = rows_seen(place_n, count_of(start_S1), place_N.numel() / (start_S1.numel() - 1), causal);
  const auto y_1HNE =
      used > 0 ? attention(part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads), sees,
                           /*causal=*/false)
               : part(0, heads);
  auto none = at::empty({0}, qkv.options());
  return {with_room(y_1HNE.squeeze(0).transpose(0, 1).flatten(1), qkv.size(0)), none, none};
}

at::Tensor counted_dropout(const at::Tensor& y, const at::Tensor& key_B, const at::Tensor& place_N,
                           const at::Tensor& start_S1, double dropout, double drop_path, int64_t stream) {
  const auto place_n = places(place_N, start_S1);
  const int64_t tokens = place_N.numel() / key_B.numel();
  const auto key_n = token_keys(key_B, tokens).flatten().index_select(0, place_n);
  auto kept = keyed_dropout_ref::apply(y.narrow(0, 0, place_n.numel()), key_n, 2 * stream, dropout);
  const auto scale_B1 =
      keyed_dropout_ref::apply(at::ones({key_B.numel(), 1}, y.options()), key_B, 2 * stream + 1, drop_path);
  kept = kept * scale_B1.index_select(0, at::floor_divide(place_n, tokens));
  return with_room(kept, y.size(0));
}

void merge_rows(at::Tensor& x_BTD, const Optional& h, const at::Tensor& y, const at::Tensor& slot_N,
                const at::Tensor& start_S1) {
  const auto [place_n, row_n] = places_in_use(slot_N, start_S1);
  auto x = x_BTD.flatten(0, 1);
  const auto held = h ? h->index_select(0, row_n) : x.index_select(0, place_n);
  x.index_copy_(0, place_n, held + y.index_select(0, row_n));
}

at::Tensor merged_rows(const at::Tensor& x_BTD, const Optional& h, const at::Tensor& y,
                       const at::Tensor& slot_N, const at::Tensor& start_S1) {
  auto merged = x_BTD.clone(at::MemoryFormat::Contiguous);
  merge_rows(merged, h, y, slot_N, start_S1);
  return merged;
}

}  // namespace
}  // namespace counted_rows_ref

TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("counts_rows", counted_rows_ref::counts_rows);
  library.impl("scorer_product", counted_rows_ref::scorer_product);
  library.impl("causal_scores", counted_rows_ref::causal_scores);
  library.impl("choose_rows", counted_rows_ref::choose_rows);
  library.impl("gathered_rms_norm", counted_rows_ref::gathered_rms_norm);
  library.impl("added_rms_norm", counted_rows_ref::added_rms_norm);
  library.impl("counted_linear", counted_rows_ref::counted_linear);
  library.impl("counted_swiglu", counted_rows_ref::counted_swiglu);
  library.impl("counted_linear_swiglu", counted_rows_ref::counted_linear_swiglu);
  library.impl("counted_rope_", counted_rows_ref::counted_rope);
  library.impl("counted_attention", counted_rows_ref::counted_attention);
  library.impl("counted_dropout", counted_rows_ref::counted_dropout);
  library.impl("merged_rows", counted_rows_ref::merged_rows);
  library.impl("merge_rows_", counted_rows_ref::merge_rows);
}

}  // namespace fathom::kernels
