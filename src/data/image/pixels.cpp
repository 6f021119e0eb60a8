#include "data/image/pixels.h"

#include "base/error.h"

namespace fathom {

namespace {

// Exact rounding of a product of two bytes divided by 255.
uint8_t divide_by_255(uint32_t product) {
  const uint32_t rounded = product + 128;
  return static_cast<uint8_t>((rounded + (rounded >> 8)) >> 8);
}

}  // namespace

Image blank_image(int64_t height, int64_t width) {
  FATHOM_CHECK(height > 0 && width > 0, "[image] expected a positive size, got {} x {}", height, width);
  return {height, width, std::vector<uint8_t>(static_cast<size_t>(height * width * 3))};
}

void composite_on_white(const uint8_t* rgba, int64_t num_pixels, uint8_t* rgb) {
  for (int64_t i = 0; i < num_pixels; ++i) {
    const uint32_t alpha = rgba[4 * i + 3];
    for (int channel = 0; channel < 3; ++channel) {
      rgb[3 * i + channel] = divide_by_255(rgba[4 * i + channel] * alpha + 255 * (255 - alpha));
    }
  }
}

void cmyk_to_rgb(const uint8_t* cmyk, int64_t num_pixels, bool inverted, uint8_t* rgb) {
  const uint8_t flip = inverted ? 0 : 255;
  for (int64_t i = 0; i < num_pixels; ++i) {
    const uint32_t light = cmyk[4 * i + 3] ^ flip;
    for (int channel = 0; channel < 3; ++channel) {
      // Pillow rounds the ink's share, not the light's.
      const uint32_t ink = 255 - (cmyk[4 * i + channel] ^ flip);
      rgb[3 * i + channel] = static_cast<uint8_t>(light - divide_by_255(ink * light));
    }
  }
}

}  // namespace fathom
