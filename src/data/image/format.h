// Steps that the decoders share: what a file is, and whether it is small enough.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "data/image/decode.h"

namespace fathom {

/// Told by the first bytes. Errors (kData): empty, or something else, which is named where it is known.
ImageFormat detect_format(std::span<const std::byte> bytes, const std::string& source);

/// Errors (kData): no pixels, or more than `options.max_pixels`.
void check_pixels(int64_t height, int64_t width, const std::string& source, const DecodeOptions& options);

}  // namespace fathom
