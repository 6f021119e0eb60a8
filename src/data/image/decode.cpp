#include "data/image/decode.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "data/image/format.h"
#include "data/image/jpeg_reader.h"
#include "data/image/orientation.h"
#include "data/image/png_webp.h"
#include "data/media_file.h"

namespace fathom {

namespace {

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// What a file that is no image of ours seems to be, for the message.
std::string describe_unknown(std::string_view text) {
  if (text.starts_with("GIF8")) return "a GIF file";
  if (text.starts_with("BM")) return "a BMP file";
  if (text.starts_with("II*") || text.starts_with("MM")) return "a TIFF file";
  if (text.substr(4).starts_with("ftyp")) return "a HEIF, AVIF or video file";
  std::string start(text.substr(0, 16));
  std::replace_if(
      start.begin(), start.end(), [](unsigned char c) { return !std::isprint(c); }, '.');
  return fmt::format("a file that begins with \"{}\"", start);
}

ImageHeader upright_header(ImageHeader stored) {
  if (turn_of(stored.orientation).transpose) std::swap(stored.height, stored.width);
  return stored;
}

}  // namespace

ImageFormat detect_format(std::span<const std::byte> bytes, const std::string& source) {
  const std::string_view text = text_of(bytes);
  if (text.starts_with("\xFF\xD8\xFF")) return ImageFormat::kJpeg;
  if (text.starts_with("\x89PNG\r\n\x1A\n")) return ImageFormat::kPng;
  if (text.size() >= 12 && text.starts_with("RIFF") && text.substr(8).starts_with("WEBP")) {
    return ImageFormat::kWebp;
  }
  if (text.empty()) fail(ErrorKind::kData, "{}: the file is empty", source);
  fail(ErrorKind::kData, "{}: expected a JPEG, PNG or WebP image, found {}", source,
       text.size() < 4 ? "only a few bytes" : describe_unknown(text));
}

void check_pixels(int64_t height, int64_t width, const std::string& source, const DecodeOptions& options) {
  if (height <= 0 || width <= 0)
    fail(ErrorKind::kData, "{}: an image of {} x {} pixels", source, width, height);
  if (height > options.max_pixels / width) {
    fail(ErrorKind::kData, "{}: {} x {} pixels are more than the limit of {}", source, width, height,
         options.max_pixels);
  }
}

ImageHeader read_image_header(std::span<const std::byte> bytes, const std::string& source,
                              const DecodeOptions& options) {
  ImageHeader stored;
  switch (detect_format(bytes, source)) {
    case ImageFormat::kJpeg: {
      const JpegReader reader(bytes, source, options);
      stored = {ImageFormat::kJpeg, reader.height(), reader.width(), reader.orientation()};
      break;
    }
    case ImageFormat::kPng:
      stored = read_png_header(bytes, source);
      break;
    case ImageFormat::kWebp:
      stored = read_webp_header(bytes, source);
      break;
  }
  check_pixels(stored.height, stored.width, source, options);
  return upright_header(stored);
}

Image decode_image(std::span<const std::byte> bytes, const std::string& source,
                   const DecodeOptions& options) {
  if (detect_format(bytes, source) == ImageFormat::kJpeg) {
    JpegReader reader(bytes, source, options);
    check_pixels(reader.height(), reader.width(), source, options);
    return turn_upright(reader.read({0, 0, reader.width(), reader.height()}), reader.orientation());
  }
  const ImageHeader header = read_image_header(bytes, source, options);
  Image stored = header.format == ImageFormat::kPng ? decode_png(bytes, source) : decode_webp(bytes, source);
  return turn_upright(std::move(stored), header.orientation);
}

Image load_image(const std::string& path, const DecodeOptions& options) {
  const std::string content = read_media(path);
  return decode_image(std::as_bytes(std::span(content)), path, options);
}

}  // namespace fathom
