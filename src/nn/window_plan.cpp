#include "nn/window_plan.h"

#include <ATen/ATen.h>

#include "kernels/window_seam.h"

namespace fathom {

kernels::WindowShape fit_windows(int64_t height, int64_t width, int64_t side, bool shifted) {
  const int64_t shorter = std::min(height, width);
  if (shorter <= side) return {height, width, shorter, 0};
  return {height, width, side, shifted ? side / 2 : 0};
}

at::Tensor relative_position_index(int64_t side, int64_t table_side) {
  const auto position = at::arange(side * side, at::kLong);
  const auto row = position.div(side, "floor"), column = position.remainder(side);
  const auto offset = [&](const at::Tensor& x) { return x.unsqueeze(1) - x.unsqueeze(0) + (table_side - 1); };
  return offset(row) * (2 * table_side - 1) + offset(column);
}

at::Tensor shift_mask(const kernels::WindowShape& shape) {
  // Along each axis of the shifted map: 0 before the last window, 1 in it up to the seam, 2 behind the seam.
  const auto region = [&](int64_t windows) {
    const int64_t length = windows * shape.side;
    const auto position = at::arange(length, at::kLong);
    return position.ge(length - shape.side).to(at::kLong) + position.ge(length - shape.shift).to(at::kLong);
  };
  const auto map = region(shape.rows()).unsqueeze(1) * 3 + region(shape.columns()).unsqueeze(0);
  const auto windows = map.view({shape.rows(), shape.side, shape.columns(), shape.side})
                           .transpose(1, 2)
                           .reshape({shape.count(), shape.side * shape.side});
  return windows.unsqueeze(1).ne(windows.unsqueeze(2)).to(at::kFloat).mul_(kernels::kSeamScore);
}

at::Tensor places_on_map(const kernels::WindowShape& shape, at::Device device) {
  const auto all = at::ones({1, shape.height, shape.width, 1}, at::TensorOptions().device(device));
  return kernels::window_partition(all, shape).squeeze(0);
}

at::Tensor window_mean(const at::Tensor& x_BWTD, const kernels::WindowShape& shape) {
  if (shape.height % shape.side == 0 && shape.width % shape.side == 0) return x_BWTD.mean(2);
  return x_BWTD.sum(2) / places_on_map(shape, x_BWTD.device()).sum(1).to(x_BWTD.scalar_type());
}

}  // namespace fathom
