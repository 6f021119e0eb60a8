// Decoding: JPEG, PNG and WebP bytes to upright RGB pixels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "data/sample.h"

namespace fathom {

enum class ImageFormat { kJpeg, kPng, kWebp };

/// What a decoder may do with bytes from outside.
struct DecodeOptions {
  int64_t max_pixels = int64_t{64} << 20;  ///< larger images are refused before memory is taken for them
  bool strict = true;  ///< damage that the codec can paper over (a file that ends early) is an error
};

/// What the first bytes say. Height and width are those of the upright image.
struct ImageHeader {
  ImageFormat format = ImageFormat::kJpeg;
  int64_t height = 0;
  int64_t width = 0;
  int orientation = 1;  ///< EXIF orientation of the stored pixels, 1 (upright) to 8
};

/// Reads size and orientation without decoding. The format is told by content, never by name.
/// Errors (kData) name `source`: empty, not an image, a broken header, more than `max_pixels`.
ImageHeader read_image_header(std::span<const std::byte> bytes, const std::string& source,
                              const DecodeOptions& options = {});

/// Decodes to RGB, 8 bits a channel, turned upright by EXIF. Grey is spread to three channels, CMYK and YCCK
/// are converted as (255 − ink)(255 − key) ÷ 255, transparency is composited on white, 16 bits keep their
/// high byte. Errors (kData) name `source` and the codec's reason.
Image decode_image(std::span<const std::byte> bytes, const std::string& source,
                   const DecodeOptions& options = {});

/// `decode_image` of a file. Errors (kData): also a missing or unreadable file.
Image load_image(const std::string& path, const DecodeOptions& options = {});

}  // namespace fathom
