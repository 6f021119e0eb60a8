// Feature maps ↔ windows, with cyclic shift and zero padding. Source: Liu et al., "Swin Transformer", 2021,
// section 3.2. B batch, W windows (row by row), T = side² places of a window, D width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace fathom::kernels {

/// A map of `height` × `width`, padded at the bottom and right to multiples of `side`, then shifted up and
/// left by `shift` (what leaves on one side enters on the other).
struct WindowShape {
  int64_t height = 0;
  int64_t width = 0;
  int64_t side = 0;
  int64_t shift = 0;

  int64_t rows() const { return (height + side - 1) / side; }  ///< of windows
  int64_t columns() const { return (width + side - 1) / side; }
  int64_t count() const { return rows() * columns(); }
};

/// [B, height, width, D] → [B, W, T, D].
at::Tensor window_partition(const at::Tensor& x, const WindowShape& shape);
/// [B, W, T, D] → [B, height, width, D]: the inverse, which drops what fell on padding.
at::Tensor window_merge(const at::Tensor& x, const WindowShape& shape);

namespace window_ref {
at::Tensor partition(const at::Tensor& x, int64_t height, int64_t width, int64_t side, int64_t shift);
at::Tensor merge(const at::Tensor& x, int64_t height, int64_t width, int64_t side, int64_t shift);
}  // namespace window_ref

}  // namespace fathom::kernels
