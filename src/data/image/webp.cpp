#include <webp/decode.h>

#include <cstring>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "data/image/orientation.h"
#include "data/image/pixels.h"
#include "data/image/png_webp.h"

namespace fathom {

namespace {

constexpr size_t kRiffHeaderBytes = 12;  // "RIFF", size, "WEBP"

const uint8_t* data_of(std::span<const std::byte> bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

const char* reason(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
      return "out of memory";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return "unsupported WebP feature";
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
      return "premature end of WebP file";
    default:
      return "corrupt WebP data";
  }
}

// The data of the EXIF chunk of a RIFF file, empty where there is none.
std::span<const std::byte> find_exif(std::span<const std::byte> bytes) {
  size_t offset = kRiffHeaderBytes;
  while (offset + 8 <= bytes.size()) {
    size_t length = 0;
    for (size_t i = 4; i > 0; --i) length = length << 8 | std::to_integer<size_t>(bytes[offset + 3 + i]);
    if (length > bytes.size() - offset - 8) break;
    if (std::memcmp(bytes.data() + offset, "EXIF", 4) == 0) return bytes.subspan(offset + 8, length);
    offset += 8 + length + (length & 1);
  }
  return {};
}

WebPBitstreamFeatures read_features(std::span<const std::byte> bytes, const std::string& source) {
  WebPBitstreamFeatures features;
  const VP8StatusCode status = WebPGetFeatures(data_of(bytes), bytes.size(), &features);
  if (status != VP8_STATUS_OK) fail(ErrorKind::kData, "{}: {}", source, reason(status));
  if (features.has_animation) fail(ErrorKind::kData, "{}: animated WebP is not supported", source);
  return features;
}

// Decodes into a buffer of `channels` bytes a pixel.
void decode_into(std::span<const std::byte> bytes, const std::string& source, std::span<uint8_t> pixels,
                 int64_t channels, int64_t width) {
  WebPDecoderConfig config;
  FATHOM_CHECK(WebPInitDecoderConfig(&config), "[webp] expected libwebp's ABI {:#x}",
               WEBP_DECODER_ABI_VERSION);
  config.output.colorspace = channels == 4 ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {pixels.data(), static_cast<int>(width * channels), pixels.size()};
  const VP8StatusCode status = WebPDecode(data_of(bytes), bytes.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) fail(ErrorKind::kData, "{}: {}", source, reason(status));
}

}  // namespace

ImageHeader read_webp_header(std::span<const std::byte> bytes, const std::string& source) {
  const WebPBitstreamFeatures features = read_features(bytes, source);
  return {ImageFormat::kWebp, features.height, features.width, exif_orientation(find_exif(bytes))};
}

Image decode_webp(std::span<const std::byte> bytes, const std::string& source) {
  const WebPBitstreamFeatures features = read_features(bytes, source);
  Image image = blank_image(features.height, features.width);
  if (!features.has_alpha) {
    decode_into(bytes, source, image.pixels, 3, image.width);
    return image;
  }
  std::vector<uint8_t> rgba(static_cast<size_t>(image.height * image.width * 4));
  decode_into(bytes, source, rgba, 4, image.width);
  composite_on_white(rgba.data(), image.height * image.width, image.pixels.data());
  return image;
}

}  // namespace fathom
