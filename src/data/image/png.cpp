#include <png.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "data/image/longjmp_guard.h"
#include "data/image/orientation.h"
#include "data/image/pixels.h"
#include "data/image/png_webp.h"

namespace fathom {

namespace {

constexpr size_t kSignatureBytes = 8;
constexpr size_t kChunkOverhead = 12;  // length, type, checksum

uint32_t big_endian(std::span<const std::byte> bytes, size_t offset) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<uint32_t>(bytes[offset + i]);
  return value;
}

// The data of the first chunk of a type, empty where there is none.
std::span<const std::byte> find_chunk(std::span<const std::byte> bytes, std::string_view type) {
  size_t offset = kSignatureBytes;
  while (offset + kChunkOverhead <= bytes.size()) {
    const size_t length = big_endian(bytes, offset);
    if (length > bytes.size() - offset - kChunkOverhead) break;
    if (std::memcmp(bytes.data() + offset + 4, type.data(), 4) == 0) return bytes.subspan(offset + 8, length);
    offset += length + kChunkOverhead;
  }
  return {};
}

// libpng's state for one file.
class PngReader {
 public:
  PngReader(std::span<const std::byte> bytes, const std::string& source) : rest_(bytes), source_(source) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &guard_, on_error, on_warning);
    if (png_) info_ = png_create_info_struct(png_);
    FATHOM_CHECK(info_, "[png] expected libpng {}", PNG_LIBPNG_VER_STRING);
    png_set_read_fn(png_, this, on_read);
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  Image read() {
    guard_.run(source_, [&] { start(); });
    const int64_t height = png_get_image_height(png_, info_);
    const int64_t width = png_get_image_width(png_, info_);
    const int64_t channels = png_get_channels(png_, info_);
    Image image = blank_image(height, width);
    std::vector<uint8_t> rgba(channels == 4 ? static_cast<size_t>(height * width * 4) : 0);
    uint8_t* pixels = channels == 4 ? rgba.data() : image.pixels.data();
    std::vector<png_bytep> rows(static_cast<size_t>(height));
    for (int64_t y = 0; y < height; ++y) rows[static_cast<size_t>(y)] = pixels + y * width * channels;
    guard_.run(source_, [&] {
      png_read_image(png_, rows.data());
      png_read_end(png_, nullptr);
    });
    if (channels == 4) composite_on_white(rgba.data(), height * width, image.pixels.data());
    return image;
  }

 private:
  // Asks for 8-bit RGB or RGBA whatever is stored.
  void start() {
    png_read_info(png_, info_);
    png_set_expand(png_);    // palettes, 1 to 4 bits, transparent colours
    png_set_strip_16(png_);  // keeps the high byte, as Pillow does
    png_set_gray_to_rgb(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
  }

  static void on_error(png_structp png, png_const_charp message) {
    static_cast<LongjmpGuard*>(png_get_error_ptr(png))->jump(message);
  }
  static void on_warning(png_structp, png_const_charp) {}
  static void on_read(png_structp png, png_bytep out, size_t length) {
    auto& self = *static_cast<PngReader*>(png_get_io_ptr(png));
    if (length > self.rest_.size()) self.guard_.jump("premature end of PNG file");
    std::memcpy(out, self.rest_.data(), length);
    self.rest_ = self.rest_.subspan(length);
  }

  std::span<const std::byte> rest_;
  const std::string& source_;
  LongjmpGuard guard_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

}  // namespace

ImageHeader read_png_header(std::span<const std::byte> bytes, const std::string& source) {
  const auto header = find_chunk(bytes, "IHDR");
  if (header.size() != 13) fail(ErrorKind::kData, "{}: no PNG header", source);
  return {ImageFormat::kPng, big_endian(header, 4), big_endian(header, 0),
          exif_orientation(find_chunk(bytes, "eXIf"))};
}

Image decode_png(std::span<const std::byte> bytes, const std::string& source) {
  return PngReader(bytes, source).read();
}

}  // namespace fathom
