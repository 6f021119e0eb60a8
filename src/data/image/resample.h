// Pillow's resampling in two passes over planes, the engine of `resize` and of the views.
#pragma once

#include <cstdint>
#include <vector>

#include "data/image/pixels.h"
#include "data/image/resize.h"

namespace fathom {

/// An image as planes of red, green and blue: `pixels[(channel * height + y) * width + x]`.
struct PlanarImage {
  int64_t height = 0;
  int64_t width = 0;
  std::vector<uint8_t> pixels;
  uint8_t* plane(int64_t channel) { return pixels.data() + channel * height * width; }
  const uint8_t* plane(int64_t channel) const { return pixels.data() + channel * height * width; }
};

Image interleave(const PlanarImage& planes);

/// What `resample` makes.
struct ResampleTarget {
  int64_t height = 0;
  int64_t width = 0;
  Filter filter = Filter::kBicubic;
  bool mirror = false;  ///< left and right exchanged, at no cost
};

/// Resamples `box` of `source`; see `resize`.
PlanarImage resample(const PixelView& source, const Box& box, const ResampleTarget& target);

/// How far from its centre the filter looks, in source pixels, where `scale` source pixels become one.
double filter_reach(Filter filter, double scale);

}  // namespace fathom
