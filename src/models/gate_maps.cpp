#include "models/gate_maps.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "nn/window_plan.h"

namespace fathom {
namespace {

/// Each place of a map as so many rows and columns.
at::Tensor enlarged(const at::Tensor& map, int64_t rows, int64_t columns) {
  return map.repeat_interleave(rows, 0).repeat_interleave(columns, 1);
}

}  // namespace

at::Tensor kept_pixels(const SwinConfig& config, int64_t index, const at::Tensor& active_T, int64_t height,
                       int64_t width) {
  int64_t stage = 0, block = index;
  int64_t rows = height / config.patch_size, columns = width / config.patch_size;
  for (; block >= config.depths.at(static_cast<size_t>(stage)); ++stage) {
    block -= config.depths[static_cast<size_t>(stage)];
    rows = (rows + 1) / 2;
    columns = (columns + 1) / 2;
  }
  auto map = active_T.to(at::kCPU, at::kFloat);
  if (active_T.numel() != rows * columns) {
    const auto shape = fit_windows(rows, columns, config.window, SwinConfig::shifts(block));
    FATHOM_CHECK(active_T.numel() == shape.count(), "[gate_maps] {} windows, expected {}", active_T.numel(),
                 shape.count());
    const auto window_1WT1 =
        map.view({1, shape.count(), 1, 1}).expand({1, shape.count(), shape.side * shape.side, 1});
    map = kernels::window_merge(window_1WT1.contiguous(), shape);
  }
  const int64_t cell = config.patch_size << stage;
  return enlarged(map.reshape({rows, columns}), cell, cell).slice(0, 0, height).slice(1, 0, width);
}

at::Tensor kept_energies(const AudioEncoderConfig& config, const at::Tensor& active_T, int64_t frames) {
  const auto map = active_T.to(at::kCPU, at::kFloat).view({config.groups(), config.num_moments(frames)});
  return enlarged(map, config.bands / config.groups(), config.stride).slice(1, 0, frames);
}

}  // namespace fathom
