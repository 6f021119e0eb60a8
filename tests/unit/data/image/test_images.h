// Pictures for the image tests: drawn, not stored.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "base/random.h"
#include "bytes_of.h"
#include "data/image/augment.h"
#include "data/image/pixels.h"

namespace fathom {

/// Camera-like content: smooth shading, edges, fine texture and a little noise.
inline Image drawn_photo(int64_t height, int64_t width, uint64_t seed = 1) {
  Random random({seed, 17});
  Image image = blank_image(height, width);
  const double stretch = 375.0 / static_cast<double>(std::min(height, width));
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const double u = static_cast<double>(x) * stretch;
      const double v = static_cast<double>(y) * stretch;
      const double shade = 110 + 60 * std::sin(u / 61) + 50 * std::cos(v / 47);
      const double texture = 12 * std::sin(u * 0.9) * std::sin(v * 0.7);
      const bool leaf = std::hypot(u - 180, v - 150) < 90 || (u + 2 * v > 800 && u - v < 260);
      const double value[3] = {shade + texture + (leaf ? 70 : 0), shade * 0.8 + texture + (leaf ? -40 : 20),
                               200 - shade * 0.6 + (leaf ? -60 : 0)};
      for (int c = 0; c < 3; ++c) {
        const double noisy = value[c] + 3 * random.normal();
        image.pixels[(y * width + x) * 3 + c] = static_cast<uint8_t>(std::clamp(noisy, 0.0, 255.0));
      }
    }
  }
  return image;
}

/// A copy of a part.
inline Image crop(const Image& image, const PixelRect& rect) {
  Image result = blank_image(rect.height, rect.width);
  const PixelView part = view_of(image, rect);
  for (int64_t y = 0; y < rect.height; ++y)
    std::copy_n(part.row(y), rect.width * 3, result.pixels.data() + y * rect.width * 3);
  return result;
}

/// Every augmentation on.
inline AugmentConfig everything() {
  AugmentConfig config;
  config.crop_scale_min = 0.08;
  config.flip = 0.5;
  config.brightness = config.contrast = config.saturation = 0.4;
  config.hue = 0.1;
  config.grayscale = 0.2;
  return config;
}

/// Mean and largest absolute difference, in levels of 255.
struct Difference {
  double mean = 0;
  int largest = 0;
};

inline Difference difference(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  if (a.size() != b.size() || a.empty()) return {255.0, 255};
  Difference result;
  int64_t sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const int gap = std::abs(int{a[i]} - int{b[i]});
    sum += gap;
    result.largest = std::max(result.largest, gap);
  }
  result.mean = static_cast<double>(sum) / static_cast<double>(a.size());
  return result;
}

}  // namespace fathom
