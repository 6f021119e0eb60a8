// EXIF orientation: how stored pixels become an upright image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "data/image/pixels.h"
#include "data/sample.h"

namespace fathom {

/// The orientation (1 to 8) in an EXIF block, with or without its "Exif\0\0" prefix; 1 where the block is
/// broken or silent. Source: Exif 2.32, sections 4.5.2 and 4.6.4 (tag 0x0112).
int exif_orientation(std::span<const std::byte> exif);

/// How an upright pixel is found among the stored ones: x and y change places first, then the stored axes are
/// mirrored.
struct Turn {
  bool transpose = false;
  bool mirror_x = false;
  bool mirror_y = false;
};

Turn turn_of(int orientation);

/// Turns stored pixels upright.
Image turn_upright(Image stored, int orientation);

/// Where in the stored image a rectangle of the upright image lies.
PixelRect stored_rect(const PixelRect& upright, int orientation, int64_t stored_height, int64_t stored_width);

}  // namespace fathom
