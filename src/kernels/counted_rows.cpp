#include "kernels/counted_rows.h"

#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

void check_rows(const at::Tensor& x, const CountedRows& rows, const char* op) {
  FATHOM_CHECK(x.dim() == 2 && x.size(0) == rows.place_N.numel() && x.is_contiguous(),
               "[{}] expected dense rows for {} tokens, got {}", op, rows.place_N.numel(),
               x.dim() > 0 ? x.size(0) : 0);
}

}  // namespace

bool has_counted_rows(const at::Tensor& x_BTD, int64_t head_size) {
  const bool half = x_BTD.scalar_type() == at::kBFloat16 || x_BTD.scalar_type() == at::kHalf;
  if (!x_BTD.is_cuda() || !half || x_BTD.size(-1) % 8 != 0 || head_size % 16 != 0 || head_size > 256)
    return false;
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow("fathom::gathered_rms_norm", "")
      .hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

at::Tensor causal_scores(const at::Tensor& both, const ScorerWeights& weights, at::Tensor& sum_BI) {
  static const auto op = find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                            const at::Tensor&, at::Tensor&)>("fathom::causal_scores");
  const int64_t inner = weights.out.numel();
  FATHOM_CHECK(both.dim() == 3 && both.size(2) == 2 * inner && weights.shift.numel() == 2 * inner &&
                   weights.bias.numel() == 1 && both.scalar_type() == at::kFloat,
               "[causal_scores] expected float32 [B, T, {}]", 2 * inner);
  return op.call(both, weights.shift, weights.out, weights.bias, sum_BI);
}

std::pair<CountedRows, at::Tensor> scored_rows(const at::Tensor& score_BT, at::Tensor& counts) {
  static const auto op = find_op<Four(const at::Tensor&, at::Tensor&)>("fathom::scored_rows");
  auto [place_N, slot_N, start_S1, active_BT] = op.call(score_BT, counts);
  return {{place_N, slot_N, start_S1}, active_BT};
}

CountedRows chosen_rows(const at::Tensor& active_BT, at::Tensor* counts) {
  static const auto op =
      find_op<Three(const at::Tensor&, const std::optional<at::Tensor>&)>("fathom::chosen_rows");
  auto [place_N, slot_N, start_S1] =
      op.call(active_BT, counts != nullptr ? std::make_optional(*counts) : std::nullopt);
  return {place_N, slot_N, start_S1};
}

at::Tensor gathered_rms_norm(const at::Tensor& x_BTD, const at::Tensor& weight, double eps,
                             const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, double, const at::Tensor&, const at::Tensor&)>(
          "fathom::gathered_rms_norm");
  return op.call(x_BTD, weight, eps, rows.place_N, rows.start_S1);
}

std::pair<at::Tensor, at::Tensor> added_rms_norm(const at::Tensor& x_BTD, const at::Tensor& y,
                                                 const at::Tensor& weight, double eps,
                                                 const CountedRows& rows) {
  static const auto op = find_op<std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, double, const at::Tensor&, const at::Tensor&)>(
      "fathom::added_rms_norm");
  check_rows(y, rows, "added_rms_norm");
  auto [sum, normed] = op.call(x_BTD, y, weight, eps, rows.place_N, rows.start_S1);
  return {sum, normed};
}

at::Tensor counted_linear(const at::Tensor& x, const at::Tensor& weight, const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>("fathom::counted_linear");
  check_rows(x, rows, "counted_linear");
  FATHOM_CHECK(weight.dim() == 2 && weight.size(1) == x.size(1) && weight.scalar_type() == x.scalar_type(),
               "[counted_linear] expected weights for {} features, of the rows' type", x.size(1));
  return op.call(x, weight, rows.start_S1);
}

at::Tensor counted_swiglu(const at::Tensor& gate_up, const CountedRows& rows) {
  static const auto op = find_op<at::Tensor(const at::Tensor&, const at::Tensor&)>("fathom::counted_swiglu");
  check_rows(gate_up, rows, "counted_swiglu");
  return op.call(gate_up, rows.start_S1);
}

void counted_rope(at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, HeadLayout layout,
                  const CountedRows& rows, const at::Tensor& keys, const at::Tensor& values) {
  static const auto op =
      find_op<void(at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t, const at::Tensor&,
                   const at::Tensor&, const std::optional<at::Tensor>&, const std::optional<at::Tensor>&)>(
          "fathom::counted_rope_");
  check_rows(qkv, rows, "counted_rope");
  const auto optional = [](const at::Tensor& x) {
    return x.defined() ? std::make_optional(x) : std::nullopt;
  };
  op.call(qkv, cos_TF, sin_TF, layout.heads, layout.kv_heads, rows.place_N, rows.start_S1, optional(keys),
          optional(values));
}

at::Tensor counted_attention(const at::Tensor& qkv, HeadLayout layout, int64_t tokens,
                             const CountedRows& rows) {
  static const auto op = find_op<at::Tensor(const at::Tensor&, int64_t, int64_t, int64_t, const at::Tensor&)>(
      "fathom::counted_attention");
  check_rows(qkv, rows, "counted_attention");
  return op.call(qkv, layout.heads, layout.kv_heads, tokens, rows.start_S1);
}

at::Tensor merged_rows(const at::Tensor& x_BTD, const at::Tensor& h, const at::Tensor& y,
                       const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
          "fathom::merged_rows");
  check_rows(h, rows, "merged_rows");
  check_rows(y, rows, "merged_rows");
  return op.call(x_BTD, h, y, rows.slot_N);
}

namespace {

/// LibTorch's flash attention takes the sequences' borders from the device.
at::Tensor flash(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t tokens,
                 const at::Tensor& start) {
  const at::Tensor all = qkv.view({qkv.size(0), heads + 2 * kv_heads, -1});
  return std::get<0>(at::_flash_attention_forward(
                         all.narrow(1, 0, heads), all.narrow(1, heads, kv_heads),
                         all.narrow(1, heads + kv_heads, kv_heads), start, start, tokens, tokens,
                         /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false))
      .flatten(1);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("causal_scores(Tensor both, Tensor shift, Tensor out, Tensor bias, Tensor(a!) sum) -> Tensor");
  library.def("scored_rows(Tensor score, Tensor(a!) counts) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("chosen_rows(Tensor active, Tensor(a!)? counts) -> (Tensor, Tensor, Tensor)");
  library.def("gathered_rms_norm(Tensor x, Tensor weight, float eps, Tensor place, Tensor start) -> Tensor");
  library.def(
      "added_rms_norm(Tensor x, Tensor y, Tensor weight, float eps, Tensor place, Tensor start) -> (Tensor, "
      "Tensor)");
  library.def("counted_linear(Tensor x, Tensor weight, Tensor start) -> Tensor");
  library.def("counted_swiglu(Tensor gate_up, Tensor start) -> Tensor");
  library.def(
      "counted_rope_(Tensor(a!) qkv, Tensor cos, Tensor sin, int heads, int kv_heads, Tensor place, Tensor "
      "start, Tensor(b!)? keys, Tensor(c!)? values) -> ()");
  library.def("counted_attention(Tensor qkv, int heads, int kv_heads, int tokens, Tensor start) -> Tensor");
  library.def("merged_rows(Tensor x, Tensor h, Tensor y, Tensor slot) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CUDA, library) {
  library.impl("counted_attention", flash);
}

}  // namespace fathom::kernels
