// Shared vocabulary of the image folder: rectangles and views of RGB rows.
#pragma once

#include <cstdint>
#include <string>

#include "data/sample.h"

namespace fathom {

/// A rectangle of whole pixels.
struct PixelRect {
  int64_t left = 0;
  int64_t top = 0;
  int64_t width = 0;
  int64_t height = 0;
  bool operator==(const PixelRect&) const = default;
};

/// Interleaved RGB rows that someone else owns; `stride` is in bytes.
struct PixelView {
  const uint8_t* pixels = nullptr;
  int64_t height = 0;
  int64_t width = 0;
  int64_t stride = 0;
  const uint8_t* row(int64_t y) const { return pixels + y * stride; }
};

inline PixelView view_of(const Image& image, const PixelRect& rect) {
  const int64_t stride = image.width * 3;
  return {image.pixels.data() + rect.top * stride + rect.left * 3, rect.height, rect.width, stride};
}

inline PixelView view_of(const Image& image) {
  return view_of(image, {0, 0, image.width, image.height});
}

/// An image of the given size, black. REQUIRES positive sizes.
Image blank_image(int64_t height, int64_t width);

/// One row of RGBA composited on white, rounded as Pillow's `paste` with a mask.
void composite_on_white(const uint8_t* rgba, int64_t num_pixels, uint8_t* rgb);

/// One row of CMYK as subtractive colour: (255 − ink) · (255 − key) ÷ 255. `inverted` rows hold 255 − ink, as
/// Adobe writes them.
void cmyk_to_rgb(const uint8_t* cmyk, int64_t num_pixels, bool inverted, uint8_t* rgb);

}  // namespace fathom
