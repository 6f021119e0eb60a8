// Where on a picture, or in a sound, lies what a gate chose. H, W pixels, F mel bands, S frames, T places.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/audio/config.h"
#include "models/swin/config.h"

namespace fathom {

/// Of a gate in block `index` of an encoder: float32 [H, W] on the CPU, 1 at the pixels of the places or
/// windows that are active (bool [T]) and 0 elsewhere. REQUIRES those of a picture of `height` × `width`.
at::Tensor kept_pixels(const SwinConfig& config, int64_t index, const at::Tensor& active_T, int64_t height,
                       int64_t width);

/// The same of a sound's spectrogram, the lowest band first: float32 [F, S]. REQUIRES tokens of `frames`.
at::Tensor kept_energies(const AudioEncoderConfig& config, const at::Tensor& active_T, int64_t frames);

}  // namespace fathom
