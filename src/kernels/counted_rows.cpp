#include "kernels/counted_rows.h"

#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

void check_rows(const at::Tensor& x, const CountedRows& rows, const char* op) {
  FATHOM_CHECK(x.dim() == 2 && x.size(0) == rows.place_N.numel() && x.is_contiguous(),
               "[{}] expected dense rows for {} tokens, got {}", op, rows.place_N.numel(),
               x.dim() > 0 ? x.size(0) : 0);
}

}  // namespace

std::optional<at::Tensor> known_sums(const ScorerProduct& product) {
  const at::Tensor& sums = product.chunk_sums;
  return sums.defined() && sums.numel() > 0 ? std::make_optional(sums) : std::nullopt;
}

bool has_counted_rows(const at::Tensor& x_BTD, int64_t head_size) {
  const bool half = x_BTD.scalar_type() == at::kBFloat16 || x_BTD.scalar_type() == at::kHalf;
  const int64_t dim = x_BTD.size(-1);
  if (!x_BTD.is_cuda() || !half || dim % kCountedVector != 0 || dim > 8192 || head_size % 16 != 0 ||
      head_size > 256)
    return false;
  static const auto op = find_op<bool(const at::Tensor&)>("fathom::counts_rows");
  return op.call(x_BTD);
}

ScorerProduct scorer_product(const at::Tensor& x_BTD, const at::Tensor& norm, const at::Tensor& project,
                             double eps) {
  static const auto op = find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>(
      "fathom::scorer_product");
  FATHOM_CHECK(x_BTD.dim() == 3 && project.dim() == 2 && project.size(1) == x_BTD.size(2) &&
                   norm.numel() == x_BTD.size(2),
               "[scorer_product] expected weights of the states' width");
  auto [both, scale_BT1, chunk_sums] = op.call(x_BTD, norm, project, eps);
  return {both, scale_BT1, chunk_sums};
}

at::Tensor causal_scores(const ScorerProduct& product, const ScorerWeights& weights, at::Tensor& sum_BI) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const Optional&, const at::Tensor&, const at::Tensor&,
                         const at::Tensor&, at::Tensor&)>("fathom::causal_scores");
  const at::Tensor& both = product.both;
  const int64_t inner = weights.out.numel();
  FATHOM_CHECK(both.dim() == 3 && both.size(2) == 2 * inner && weights.shift.numel() == 2 * inner &&
                   weights.bias.numel() == 1 && sum_BI.scalar_type() == both.scalar_type(),
               "[causal_scores] expected [B, T, {}] and sums of its type", 2 * inner);
  return op.call(both, known_sums(product), weights.shift, weights.out, weights.bias, sum_BI);
}

std::pair<CountedRows, at::Tensor> chosen_rows(const RowChoice& choice, at::Tensor* counts) {
  static const auto op = find_op<Four(const Optional&, const Optional&, const Optional&, const Optional&,
                                      const Optional&, int64_t, double)>("fathom::choose_rows");
  const bool explores = choice.key_B.defined() && choice.explore > 0;
  FATHOM_CHECK(choice.score_BT.defined() || choice.active_BT.defined(),
               "[chosen_rows] expected scores or active tokens");
  auto [place_N, slot_N, border_S2, active_BT] =
      op.call(optional(choice.score_BT), optional(choice.active_BT), optional(choice.present_BT),
              counts != nullptr ? std::make_optional(*counts) : std::nullopt,
              explores ? std::make_optional(choice.key_B) : std::nullopt, choice.stream, choice.explore);
  const int64_t borders = border_S2.numel() - 1;
  return {{place_N, slot_N, border_S2.narrow(0, 0, borders),
           explores ? border_S2.narrow(0, 1, borders) : at::Tensor()},
          active_BT};
}

at::Tensor gathered_rms_norm(const at::Tensor& x_BTD, const at::Tensor& weight, double eps,
                             const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, double, const at::Tensor&, const at::Tensor&)>(
          "fathom::gathered_rms_norm");
  return op.call(x_BTD, weight, eps, rows.place_N, rows.all());
}

std::pair<at::Tensor, at::Tensor> added_rms_norm(const at::Tensor& x_BTD, const at::Tensor& y,
                                                 const at::Tensor& weight, double eps,
                                                 const CountedRows& rows) {
  static const auto op = find_op<Two(const at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                                     const at::Tensor&, const at::Tensor&)>("fathom::added_rms_norm");
  check_rows(y, rows, "added_rms_norm");
  auto [sum, normed] = op.call(x_BTD, y, weight, eps, rows.place_N, rows.all());
  return {sum, normed};
}

at::Tensor counted_linear(const at::Tensor& x, const at::Tensor& weight, const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t)>(
          "fathom::counted_linear");
  check_rows(x, rows, "counted_linear");
  FATHOM_CHECK(weight.dim() == 2 && weight.size(1) == x.size(1) && weight.scalar_type() == x.scalar_type(),
               "[counted_linear] expected weights for {} features, of the rows' type", x.size(1));
  return op.call(x, weight, rows.all(), rows.expected);
}

at::Tensor counted_swiglu(const at::Tensor& gate_up, const CountedRows& rows) {
  static const auto op = find_op<at::Tensor(const at::Tensor&, const at::Tensor&)>("fathom::counted_swiglu");
  check_rows(gate_up, rows, "counted_swiglu");
  return op.call(gate_up, rows.all());
}

std::pair<at::Tensor, at::Tensor> counted_linear_swiglu(const at::Tensor& x, const at::Tensor& weight,
                                                        const CountedRows& rows, bool keep) {
  static const auto op =
      find_op<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                 int64_t, bool)>("fathom::counted_linear_swiglu");
  check_rows(x, rows, "counted_linear_swiglu");
  FATHOM_CHECK(weight.dim() == 2 && weight.size(0) % 2 == 0 && weight.size(1) == x.size(1) &&
                   weight.scalar_type() == x.scalar_type(),
               "[counted_linear_swiglu] expected weights for {} features, of the rows' type", x.size(1));
  auto [y, gate_up] = op.call(x, weight, rows.all(), rows.expected, keep);
  return {y, gate_up};
}

void counted_rope(at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, HeadLayout layout,
                  const CountedRows& rows, const at::Tensor& keys, const at::Tensor& values) {
  static const auto op =
      find_op<void(at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t, const at::Tensor&,
                   const at::Tensor&, const Optional&, const Optional&)>("fathom::counted_rope_");
  check_rows(qkv, rows, "counted_rope");
  FATHOM_CHECK(!keys.defined() || !rows.used_S1.defined(), "[counted_rope] explored rows have no cache");
  op.call(qkv, cos_TF, sin_TF, layout.heads, layout.kv_heads, rows.place_N, rows.all(), optional(keys),
          optional(values));
}

CountedAttention counted_attention(const at::Tensor& qkv, HeadLayout layout, bool causal,
                                   const CountedRows& rows) {
  static const auto op = find_op<Three(const at::Tensor&, int64_t, int64_t, bool, const at::Tensor&,
                                       const at::Tensor&, const Optional&)>("fathom::counted_attention");
  check_rows(qkv, rows, "counted_attention");
  auto [y, sums, offsets] = op.call(qkv, layout.heads, layout.kv_heads, causal, rows.place_N, rows.start_S1,
                                    optional(rows.used_S1));
  return {y, sums, offsets};
}

at::Tensor counted_dropout(const at::Tensor& y, const at::Tensor& key_B, const RowDrop& drop,
                           const CountedRows& rows, const at::Tensor& count_S1) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                         double, int64_t)>("fathom::counted_dropout");
  check_rows(y, rows, "counted_dropout");
  FATHOM_CHECK(key_B.scalar_type() == at::kLong && key_B.numel() == count_S1.numel() - 1,
               "[counted_dropout] expected one int64 key a sequence, got {}", key_B.numel());
  return op.call(y, key_B, rows.place_N, count_S1, drop.dropout, drop.drop_path, drop.stream);
}

at::Tensor merged_rows(const at::Tensor& x_BTD, const at::Tensor& h, const at::Tensor& y,
                       const CountedRows& rows) {
  static const auto op = find_op<at::Tensor(const at::Tensor&, const Optional&, const at::Tensor&,
                                            const at::Tensor&, const at::Tensor&)>("fathom::merged_rows");
  if (h.defined()) check_rows(h, rows, "merged_rows");
  check_rows(y, rows, "merged_rows");
  return op.call(x_BTD, optional(h), y, rows.slot_N, rows.start_S1);
}

void merge_rows(at::Tensor& x_BTD, const at::Tensor& h, const at::Tensor& y, const CountedRows& rows) {
  static const auto op =
      find_op<void(at::Tensor&, const Optional&, const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
          "fathom::merge_rows_");
  if (h.defined()) check_rows(h, rows, "merge_rows");
  check_rows(y, rows, "merge_rows");
  FATHOM_CHECK(x_BTD.is_contiguous(), "[merge_rows] expected dense states");
  op.call(x_BTD, optional(h), y, rows.slot_N, rows.start_S1);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("counts_rows(Tensor x) -> bool");
  library.def("scorer_product(Tensor x, Tensor norm, Tensor project, float eps) -> (Tensor, Tensor, Tensor)");
  library.def(
      "causal_scores(Tensor both, Tensor? chunk_sums, Tensor shift, Tensor out, Tensor bias, Tensor(a!) sum) "
      "-> Tensor");
  library.def(
      "choose_rows(Tensor? score, Tensor? active, Tensor? present, Tensor(a!)? counts, Tensor? key, int "
      "stream, float "
      "explore) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  library.def("gathered_rms_norm(Tensor x, Tensor weight, float eps, Tensor place, Tensor start) -> Tensor");
  library.def(
      "added_rms_norm(Tensor x, Tensor y, Tensor weight, float eps, Tensor place, Tensor start) -> (Tensor, "
      "Tensor)");
  library.def("counted_linear(Tensor x, Tensor weight, Tensor start, int expected) -> Tensor");
  library.def("counted_swiglu(Tensor gate_up, Tensor start) -> Tensor");
  library.def(
      "counted_linear_swiglu(Tensor x, Tensor weight, Tensor start, int expected, bool keep) -> (Tensor, "
      "Tensor)");
  library.def(
      "counted_rope_(Tensor(a!) qkv, Tensor cos, Tensor sin, int heads, int kv_heads, Tensor place, Tensor "
      "start, Tensor(b!)? keys, Tensor(c!)? values) -> ()");
  library.def(
      "counted_attention(Tensor qkv, int heads, int kv_heads, bool causal, Tensor place, Tensor start, "
      "Tensor? used) -> "
      "(Tensor, Tensor, Tensor)");
  library.def(
      "counted_dropout(Tensor y, Tensor key, Tensor place, Tensor start, float dropout, float drop_path, int "
      "stream) -> Tensor");
  library.def("merged_rows(Tensor x, Tensor? h, Tensor y, Tensor slot, Tensor start) -> Tensor");
  library.def("merge_rows_(Tensor(a!) x, Tensor? h, Tensor y, Tensor slot, Tensor start) -> ()");
}

}  // namespace fathom::kernels
