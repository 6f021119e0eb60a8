// Samples → Batch → device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <array>
#include <cstdint>
#include <span>

#include "batch/batch.h"
#include "data/sample.h"

namespace fathom {

struct CollateConfig {
  int64_t padding_id = 0;     ///< fills rows of tokens up to the longest
  int64_t pad_multiple = 1;   ///< the padded length is rounded up to a multiple of this
  int64_t pad_to = 0;         ///< pad to exactly this many tokens (0: to the longest)
  int64_t pad_frames_to = 0;  ///< the same for the frames of clips
  bool missing = false;       ///< samples may lack pictures, sounds or texts that others have
};

/// Stacks samples; a modality is present when every sample has it, or with `missing` when one has it: rows of
/// the others are zeros (padding, no tokens), and `has_…_B` tells them apart. Images must be of one size,
/// spectrograms of one number of bands.
/// Shapes: B = samples.size(); image_BCHW is uint8 with channels-last strides (the samples' own layout).
/// Errors (kInternal): no samples, a modality in some samples only, images of different sizes, rows beyond
/// `pad_to`, clips beyond `pad_frames_to`.
Batch collate(std::span<const Sample> samples, const CollateConfig& config = {});

/// Per-channel mean and deviation of pixels in [0, 1], in RGB order.
struct PixelStatistics {
  std::array<double, 3> mean{0.485, 0.456, 0.406};
  std::array<double, 3> deviation{0.229, 0.224, 0.225};
};

/// Moves tensors to `device` (without blocking where the memory is pinned) and turns uint8 images into
/// normalised contiguous float32: (pixel / 255 − mean) / deviation.
Batch to_device(Batch batch, at::Device device, const PixelStatistics& pixels = {});

/// Rows [start, start + count) of every tensor: for micro-batches.
Batch slice_batch(const Batch& batch, int64_t start, int64_t count);

}  // namespace fathom
