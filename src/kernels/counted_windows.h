// Windows of a map that the device counts. Letters as in counted_rows.h and shifted_window_attention.h, W
// windows of a map of T places each.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "kernels/counted_gradients.h"
#include "kernels/counted_rows.h"
#include "kernels/window.h"

namespace fathom::kernels {

/// Mean of each window's places: [B, height, width, D] → [B, W, D]. No gradient. Windows divide the map.
at::Tensor window_means(const at::Tensor& x, const WindowShape& shape);

/// The places of windows [B, W] as rows of the maps' places [B, height · width]: the first window's T, row by
/// row, then the next one's. Windows divide the map.
CountedRows window_rows(const CountedRows& windows, const WindowShape& shape);

/// Whether there are kernels for windows of a map `x` [B, height, width, D], with their backward pass where
/// gradients are recorded.
bool has_counted_windows(const at::Tensor& x, const WindowShape& shape, int64_t head_size);

/// `shifted_window_attention` of the windows that `rows` (as `window_rows` makes them) hold: `qkv` [N,
/// 3·H·E], `bias_HTT` → [N, H·E]. Explored windows too, since none sees another.
at::Tensor counted_window_attention(const at::Tensor& qkv, const at::Tensor& bias_HTT,
                                    const WindowShape& shape, const CountedRows& rows);
/// Gradients of qkv and bias, of the active windows alone.
std::tuple<at::Tensor, at::Tensor> counted_window_attention_backward(const at::Tensor& grad,
                                                                     const at::Tensor& qkv,
                                                                     const at::Tensor& bias_HTT,
                                                                     const WindowShape& shape,
                                                                     const CountedRows& rows);

/// As the scores' gradient of `merged_rows_backward`: of windows [B, W], by what their rows brought
/// (`rows_brought`).
at::Tensor window_score_grad(const at::Tensor& brought_N, const ScoreGradient& score,
                             const CountedRows& windows);

}  // namespace fathom::kernels
