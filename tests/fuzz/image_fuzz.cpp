// Any bytes: an image or an Error, in bounded memory; and a part of an image is as safe as the whole.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "data/image/image.h"

namespace {

constexpr fathom::DecodeOptions kStrict = {.max_pixels = 1 << 16};
constexpr fathom::DecodeOptions kLenient = {.max_pixels = 1 << 16, .strict = false};

template <typename Call>
void ignoring_bad_data(const Call& call) {
  try {
    call();
  } catch (const fathom::Error& error) {
    if (error.kind() == fathom::ErrorKind::kInternal) throw;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fathom::EncodedImage encoded = {std::as_bytes(std::span(data, size)), "fuzz"};
  ignoring_bad_data([&] { fathom::read_image_header(encoded.bytes, encoded.source, kStrict); });
  ignoring_bad_data([&] { fathom::decode_image(encoded.bytes, encoded.source, kLenient); });
  ignoring_bad_data([&] {
    fathom::Random random(size);
    fathom::AugmentConfig config;
    config.crop_scale_min = 0.1;
    fathom::load_augmented(encoded, config, 16, random, kStrict);
  });
  ignoring_bad_data([&] { fathom::load_centre_view(encoded, {}, 16, kLenient); });
  return 0;
}
