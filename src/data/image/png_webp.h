// PNG through libpng and WebP through libwebp: whole files only.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "data/image/decode.h"
#include "data/sample.h"

namespace fathom {

/// Stored (not upright) size and orientation. Errors (kData): a broken header.
ImageHeader read_png_header(std::span<const std::byte> bytes, const std::string& source);
ImageHeader read_webp_header(std::span<const std::byte> bytes, const std::string& source);

/// Stored pixels. Errors (kData) carry the codec's reason.
Image decode_png(std::span<const std::byte> bytes, const std::string& source);
Image decode_webp(std::span<const std::byte> bytes, const std::string& source);

}  // namespace fathom
