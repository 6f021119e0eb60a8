// What window attention needs to know of a feature map's size.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/window.h"

namespace fathom {

/// Windows over a map of `height` × `width`. A window that is not smaller than the map's shorter side shrinks
/// to it and is not shifted.
kernels::WindowShape fit_windows(int64_t height, int64_t width, int64_t side, bool shifted);

/// Place in the bias table of the offset between each pair of places: int64 [T, T], T = side². The table has
/// (2·table_side − 1)² rows, made for windows of `table_side` ≥ `side`.
at::Tensor relative_position_index(int64_t side, int64_t table_side);

/// 0 where two places of a shifted window were neighbours in the map, kernels::kSeamScore where the shift
/// joined them: float32 [W, T, T].
at::Tensor shift_mask(const kernels::WindowShape& shape);

/// 1 at the places of each window that lie on the map, 0 at padding: float32 [W, T, 1].
at::Tensor places_on_map(const kernels::WindowShape& shape, at::Device device);

/// Mean of the places of each window that lie on the map: [B, W, T, D] → [B, W, D]. REQUIRES zeros elsewhere.
at::Tensor window_mean(const at::Tensor& x_BWTD, const kernels::WindowShape& shape);

}  // namespace fathom
