// Resizing with antialiasing, bit for bit as Pillow does it.
#pragma once

#include <cstdint>

#include "data/sample.h"

namespace fathom {

enum class Filter { kBilinear, kBicubic };

/// A rectangle in pixel coordinates, [left, right) × [top, bottom); fractions are allowed.
struct Box {
  double left = 0;
  double top = 0;
  double right = 0;
  double bottom = 0;
};

/// Resamples the whole image. REQUIRES positive sizes.
Image resize(const Image& image, int64_t height, int64_t width, Filter filter);

/// Resamples the part of the image under `box`; the filter may look outside the box, within the image.
/// REQUIRES a box of positive area inside the image.
///
/// Separable convolution in two passes (rows first) with the filter stretched by the scale where the image
/// shrinks, 22-bit fixed-point weights and an 8-bit image between the passes: the arithmetic of
/// `PIL.Image.resize(size, resample, box)`, whose result (Pillow up to 12) this equals exactly on every
/// processor.
Image resize(const Image& image, int64_t height, int64_t width, Filter filter, const Box& box);

}  // namespace fathom
