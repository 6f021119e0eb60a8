#include "kernels/window.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/roll.h>

namespace fathom::kernels::window_ref {

at::Tensor partition(const at::Tensor& x, int64_t height, int64_t width, int64_t side, int64_t shift) {
  const WindowShape shape = {height, width, side, shift};
  const int64_t rows = shape.rows(), columns = shape.columns();
  auto map = x;
  if (rows * side != height || columns * side != width)
    map = at::constant_pad_nd(map, {0, 0, 0, columns * side - width, 0, rows * side - height});
  if (shift > 0) map = at::roll(map, {-shift, -shift}, {1, 2});
  return map.reshape({x.size(0), rows, side, columns, side, x.size(3)})
      .permute({0, 1, 3, 2, 4, 5})
      .reshape({x.size(0), rows * columns, side * side, x.size(3)});
}

at::Tensor merge(const at::Tensor& x, int64_t height, int64_t width, int64_t side, int64_t shift) {
  const WindowShape shape = {height, width, side, shift};
  const int64_t rows = shape.rows(), columns = shape.columns();
  auto map = x.reshape({x.size(0), rows, columns, side, side, x.size(3)})
                 .permute({0, 1, 3, 2, 4, 5})
                 .reshape({x.size(0), rows * side, columns * side, x.size(3)});
  if (shift > 0) map = at::roll(map, {shift, shift}, {1, 2});
  return map.narrow(1, 0, height).narrow(2, 0, width).contiguous();
}

}  // namespace fathom::kernels::window_ref
