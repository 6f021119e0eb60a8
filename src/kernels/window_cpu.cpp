#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstring>

#include "base/error.h"
#include "kernels/window.h"

namespace fathom::kernels {
namespace {

/// Calls `move(place in windows, place in the map or −1 for padding)` for all places of images [begin, end).
template <typename Move>
void for_each_place(const WindowShape& shape, int64_t begin, int64_t end, const Move& move) {
  const int64_t side = shape.side, columns = shape.columns(), padded_height = shape.rows() * side,
                padded_width = columns * side, places = shape.count() * side * side;
  for (int64_t image = begin; image < end; ++image)
    for (int64_t place = 0; place < places; ++place) {
      const int64_t window = place / (side * side), inside = place % (side * side);
      const int64_t row = window / columns * side + inside / side,
                    column = window % columns * side + inside % side;
      const int64_t y = (row + shape.shift) % padded_height, x = (column + shape.shift) % padded_width;
      const bool real = y < shape.height && x < shape.width;
      move(image * places + place, real ? (image * shape.height + y) * shape.width + x : -1);
    }
}

at::Tensor partition_cpu(const at::Tensor& x_in, int64_t height, int64_t width, int64_t side, int64_t shift) {
  const WindowShape shape = {height, width, side, shift};
  const auto x = x_in.contiguous();
  auto y = at::empty({x.size(0), shape.count(), side * side, x.size(3)}, x.options());
  const auto bytes = static_cast<int64_t>(x.element_size()) * x.size(3);
  const auto* from = static_cast<const std::byte*>(x.const_data_ptr());
  auto* to = static_cast<std::byte*>(y.mutable_data_ptr());
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    for_each_place(shape, begin, end, [&](int64_t in_windows, int64_t in_map) {
      if (in_map >= 0)
        std::memcpy(to + in_windows * bytes, from + in_map * bytes, static_cast<size_t>(bytes));
      else
        std::memset(to + in_windows * bytes, 0, static_cast<size_t>(bytes));
    });
  });
  return y;
}

at::Tensor merge_cpu(const at::Tensor& x_in, int64_t height, int64_t width, int64_t side, int64_t shift) {
  const WindowShape shape = {height, width, side, shift};
  const auto x = x_in.contiguous();
  auto y = at::empty({x.size(0), height, width, x.size(3)}, x.options());
  const auto bytes = static_cast<int64_t>(x.element_size()) * x.size(3);
  const auto* from = static_cast<const std::byte*>(x.const_data_ptr());
  auto* to = static_cast<std::byte*>(y.mutable_data_ptr());
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    for_each_place(shape, begin, end, [&](int64_t in_windows, int64_t in_map) {
      if (in_map >= 0)
        std::memcpy(to + in_map * bytes, from + in_windows * bytes, static_cast<size_t>(bytes));
    });
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("window_partition", partition_cpu);
  library.impl("window_merge", merge_cpu);
}

}  // namespace fathom::kernels
