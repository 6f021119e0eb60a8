// JPEG through libjpeg-turbo: whole, in part, and at reduced size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "data/image/decode.h"
#include "data/image/pixels.h"
#include "data/sample.h"

namespace fathom {

/// One JPEG file in memory. Reads the header when made and the pixels once. The bytes must outlive it.
class JpegReader {
 public:
  /// Errors (kData): no JPEG header.
  JpegReader(std::span<const std::byte> bytes, const std::string& source, const DecodeOptions& options);
  ~JpegReader();
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  int64_t height() const;  ///< stored, before EXIF orientation
  int64_t width() const;
  int orientation() const;

  /// The pixels of `rect`, given in the coordinates of the image reduced to ceil(size ÷ denominator), as
  /// stored. Equal to the same part of a whole decode; rows below it are not decoded, only the end of the
  /// file is looked for. REQUIRES a denominator of 1, 2, 4 or 8, a rectangle inside; call once.
  Image read(const PixelRect& rect, int denominator = 1);

 private:
  struct State;

  void start(int denominator);
  int64_t narrow_columns(const PixelRect& rect);
  void read_rows(const PixelRect& rect, int64_t column, uint8_t* pixels);
  void finish();

  std::unique_ptr<State> state_;
};

}  // namespace fathom
