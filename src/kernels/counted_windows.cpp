#include "kernels/counted_windows.h"

#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/counted_layers.h"
#include "kernels/shifted_window_attention.h"

namespace fathom::kernels {
namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

void check_windows(const at::Tensor& x, const CountedRows& rows, const WindowShape& shape, const char* op) {
  FATHOM_CHECK(x.dim() == 2 && x.size(0) == rows.place_N.numel() &&
                   rows.place_N.numel() == (rows.start_S1.numel() - 1) * shape.height * shape.width,
               "[{}] expected a row a place of maps of {} × {}", op, shape.height, shape.width);
}

}  // namespace

at::Tensor window_means(const at::Tensor& x, const WindowShape& shape) {
  static const auto op = find_op<at::Tensor(const at::Tensor&, int64_t, int64_t)>("fathom::window_means");
  FATHOM_CHECK(x.dim() == 4 && x.size(1) == shape.height && x.size(2) == shape.width &&
                   shape.height % shape.side == 0 && shape.width % shape.side == 0,
               "[window_means] expected windows that divide a map of {} × {}", shape.height, shape.width);
  return op.call(x, shape.side, shape.shift);
}

CountedRows window_rows(const CountedRows& windows, const WindowShape& shape) {
  static const auto op = find_op<Three(const at::Tensor&, const at::Tensor&, const Optional&, int64_t,
                                       int64_t, int64_t, int64_t)>("fathom::window_rows");
  const int64_t images = windows.start_S1.numel() - 1, places = shape.side * shape.side;
  FATHOM_CHECK(shape.height % shape.side == 0 && shape.width % shape.side == 0 &&
                   windows.slot_N.numel() == images * shape.count(),
               "[window_rows] expected windows that divide a map of {} × {}", shape.height, shape.width);
  auto [place_N, slot_N, border_S2] = op.call(windows.slot_N, windows.start_S1, optional(windows.used_S1),
                                              shape.height, shape.width, shape.side, shape.shift);
  return {.place_N = place_N,
          .slot_N = slot_N,
          .start_S1 = border_S2.narrow(0, 0, images + 1),
          .used_S1 = windows.used_S1.defined() ? border_S2.narrow(0, 1, images + 1) : at::Tensor(),
          .expected = windows.expected * places};
}

bool has_counted_windows(const at::Tensor& x, const WindowShape& shape, int64_t head_size) {
  return shape.height % shape.side == 0 && shape.width % shape.side == 0 && has_counted_layers(x) &&
         has_shifted_window_attention(x, shape, head_size);
}

at::Tensor counted_window_attention(const at::Tensor& qkv, const at::Tensor& bias_HTT,
                                    const WindowShape& shape, const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                         int64_t, int64_t, int64_t)>("fathom::counted_window_attention");
  check_windows(qkv, rows, shape, "counted_window_attention");
  return op.call(qkv, bias_HTT, rows.place_N, rows.all(), shape.height, shape.width, shape.side, shape.shift);
}

std::tuple<at::Tensor, at::Tensor> counted_window_attention_backward(const at::Tensor& grad,
                                                                     const at::Tensor& qkv,
                                                                     const at::Tensor& bias_HTT,
                                                                     const WindowShape& shape,
                                                                     const CountedRows& rows) {
  static const auto op =
      find_op<Two(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                  const at::Tensor&, int64_t, int64_t, int64_t, int64_t)>(
          "fathom::counted_window_attention_backward");
  check_windows(grad, rows, shape, "counted_window_attention_backward");
  return op.call(grad, qkv, bias_HTT, rows.place_N, rows.start_S1, shape.height, shape.width, shape.side,
                 shape.shift);
}

at::Tensor window_score_grad(const at::Tensor& brought_N, const ScoreGradient& score,
                             const CountedRows& windows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const Optional&, double, double,
                         const at::Tensor&, const at::Tensor&)>("fathom::window_score_grad");
  FATHOM_CHECK(score.score_BT.numel() == windows.slot_N.numel() && score.explore > 0 &&
                   brought_N.numel() % windows.slot_N.numel() == 0,
               "[window_score_grad] expected scores of {} windows", windows.slot_N.numel());
  return op.call(brought_N, score.score_BT, optional(score.multiplier), score.share, score.explore,
                 windows.slot_N, windows.start_S1);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("window_means(Tensor x, int side, int shift) -> Tensor");
  library.def(
      "window_rows(Tensor slot, Tensor start, Tensor? used, int height, int width, int side, int shift) -> "
      "(Tensor, Tensor, Tensor)");
  library.def(
      "counted_window_attention(Tensor qkv, Tensor bias, Tensor place, Tensor start, int height, int width, "
      "int side, int shift) -> Tensor");
  library.def(
      "counted_window_attention_backward(Tensor grad, Tensor qkv, Tensor bias, Tensor place, Tensor start, "
      "int height, int width, int side, int shift) -> (Tensor, Tensor)");
  library.def(
      "window_score_grad(Tensor brought, Tensor score, Tensor? multiplier, float share, float explore, "
      "Tensor slot, Tensor start) -> Tensor");
}

}  // namespace fathom::kernels
