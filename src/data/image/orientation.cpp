#include "data/image/orientation.h"

#include <optional>
#include <string_view>
#include <utility>

namespace fathom {

namespace {

// Unsigned numbers at checked offsets in either byte order.
class TiffReader {
 public:
  explicit TiffReader(std::span<const std::byte> bytes) : bytes_(bytes) {
    little_ = bytes.size() > 1 && byte(0) == 'I';
  }

  std::optional<uint32_t> number(size_t offset, size_t size) const {
    if (offset > bytes_.size() || bytes_.size() - offset < size) return std::nullopt;
    uint32_t value = 0;
    for (size_t i = 0; i < size; ++i) value = value << 8 | byte(offset + (little_ ? size - 1 - i : i));
    return value;
  }

 private:
  uint32_t byte(size_t offset) const { return std::to_integer<uint32_t>(bytes_[offset]); }

  std::span<const std::byte> bytes_;
  bool little_ = false;
};

}  // namespace

int exif_orientation(std::span<const std::byte> exif) {
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  const std::string_view text(reinterpret_cast<const char*>(exif.data()), exif.size());
  if (text.starts_with(kPrefix)) exif = exif.subspan(kPrefix.size());
  const TiffReader tiff(exif);
  if (tiff.number(2, 2) != 42u) return 1;
  const auto directory = tiff.number(4, 4);
  if (!directory) return 1;
  const uint32_t num_entries = tiff.number(*directory, 2).value_or(0);
  for (uint32_t i = 0; i < num_entries; ++i) {
    const size_t entry = size_t{*directory} + 2 + size_t{i} * 12;
    const auto tag = tiff.number(entry, 2);
    if (!tag) return 1;
    if (*tag != 0x0112) continue;
    const uint32_t value = tiff.number(entry + 8, 2).value_or(1);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Turn turn_of(int orientation) {
  const bool mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  return {orientation >= 5, mirror_x, mirror_y};
}

Image turn_upright(Image stored, int orientation) {
  if (orientation == 1) return stored;
  const Turn turn = turn_of(orientation);
  Image upright =
      turn.transpose ? blank_image(stored.width, stored.height) : blank_image(stored.height, stored.width);
  uint8_t* out = upright.pixels.data();
  for (int64_t y = 0; y < upright.height; ++y) {
    for (int64_t x = 0; x < upright.width; ++x, out += 3) {
      int64_t stored_y = turn.transpose ? x : y;
      int64_t stored_x = turn.transpose ? y : x;
      if (turn.mirror_y) stored_y = stored.height - 1 - stored_y;
      if (turn.mirror_x) stored_x = stored.width - 1 - stored_x;
      const uint8_t* in = stored.pixels.data() + (stored_y * stored.width + stored_x) * 3;
      out[0] = in[0];
      out[1] = in[1];
      out[2] = in[2];
    }
  }
  return upright;
}

PixelRect stored_rect(const PixelRect& upright, int orientation, int64_t stored_height,
                      int64_t stored_width) {
  const Turn turn = turn_of(orientation);
  PixelRect rect = upright;
  if (turn.transpose) {
    std::swap(rect.left, rect.top);
    std::swap(rect.width, rect.height);
  }
  if (turn.mirror_x) rect.left = stored_width - rect.left - rect.width;
  if (turn.mirror_y) rect.top = stored_height - rect.top - rect.height;
  return rect;
}

}  // namespace fathom
