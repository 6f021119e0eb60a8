// Views straight from encoded bytes: reading only a part of a file, or at reduced size, changes nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "data/image/image.h"
#include "test_images.h"

namespace fathom::image_load_test {
namespace {

std::vector<EncodedImage> encoded_cases(std::vector<std::string>& contents) {
  contents = {encode_jpeg(drawn_photo(375, 500), 85), encode_png(drawn_photo(90, 121))};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    contents.push_back(read_file(FATHOM_GOLDENS "/image/exif_" + std::to_string(orientation) + ".jpg"));
  }
  contents.push_back(read_file(FATHOM_GOLDENS "/image/cmyk.jpg"));
  contents.push_back(read_file(FATHOM_GOLDENS "/image/alpha.webp"));
  std::vector<EncodedImage> cases;
  for (const std::string& content : contents) {
    cases.push_back({bytes_of(content), "case " + std::to_string(cases.size())});
  }
  return cases;
}

TEST(ImageLoad, PartialDecodingGivesTheVeryPixels) {
  std::vector<std::string> contents;
  for (const EncodedImage& encoded : encoded_cases(contents)) {
    const Image image = decode_image(encoded.bytes, encoded.source);
    AugmentConfig config = everything();
    config.scaled_decode = false;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      Random first({seed});
      Random second({seed});
      const Image expected = augment(image, config, 30, first);
      ASSERT_EQ(load_augmented(encoded, config, 30, second).pixels, expected.pixels) << encoded.source;
      EXPECT_EQ(first.next_u64(), second.next_u64()) << "one drew more than the other";
    }
    for (const double share : {1.0, 0.6}) {
      config.evaluation_crop = share;
      ASSERT_EQ(load_centre_view(encoded, config, 30).pixels, centre_view(image, config, 30).pixels)
          << encoded.source;
    }
  }
}

TEST(ImageLoad, PlanesHoldTheSamePixels) {
  const std::string content = encode_jpeg(drawn_photo(75, 100));
  const EncodedImage encoded = {bytes_of(content), "planes"};
  const AugmentConfig config = everything();
  Random first({4});
  Random second({4});
  const Image image = load_augmented(encoded, config, 24, first);
  std::vector<uint8_t> planes(3 * 24 * 24);
  load_augmented(encoded, config, 24, second, planes);
  for (size_t i = 0; i < planes.size(); ++i) {
    ASSERT_EQ(planes[i], image.pixels[(i % 576) * 3 + i / 576]);
  }
  std::vector<uint8_t> too_small(10);
  EXPECT_THROW(load_centre_view(encoded, config, 24, too_small), Error);
}

TEST(ImageLoad, ErrorsNameTheSource) {
  const std::string content = encode_jpeg(drawn_photo(75, 100));
  const std::string cut = content.substr(0, 900);
  Random random({4});
  try {
    load_augmented({bytes_of(cut), "photos/17.jpg"}, everything(), 24, random);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("photos/17.jpg: "));
  }
}

// White noise, the hardest content for a reduced decode.
Image noise(int64_t height, int64_t width) {
  Random random({9});
  Image image = blank_image(height, width);
  for (uint8_t& value : image.pixels) value = static_cast<uint8_t>(random.next_u32());
  return image;
}

TEST(ImageLoad, ScaledDecodingStaysWithinOneLevel) {
  AugmentConfig full;
  full.flip = 0.5;
  full.scaled_decode = false;
  AugmentConfig scaled = full;
  scaled.scaled_decode = true;
  int num_different = 0;
  const std::string contents[] = {encode_jpeg(drawn_photo(900, 1200), 85), encode_jpeg(noise(801, 803), 95)};
  for (const std::string& content : contents) {
    const EncodedImage encoded = {bytes_of(content), "large"};
    for (const int64_t size : {24, 48, 96}) {
      for (uint64_t seed = 0; seed < 4; ++seed) {
        Random first({seed});
        Random second({seed});
        const Image expected = load_augmented(encoded, full, size, first);
        const Image view = load_augmented(encoded, scaled, size, second);
        EXPECT_LE(difference(view.pixels, expected.pixels).mean, 1.0) << size;
        num_different += view.pixels != expected.pixels;
      }
    }
  }
  EXPECT_GT(num_different, 8) << "nothing was scaled";
}

// A JPEG with an EXIF block in front that says how to turn it.
std::string with_orientation(const std::string& jpeg, int orientation) {
  std::string exif(
      "\xFF\xE1\0\x22"
      "Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0?\0\0\0\0\0\0\0",
      36);
  exif[28] = static_cast<char>(orientation);
  return jpeg.substr(0, 2) + exif + jpeg.substr(2);
}

TEST(ImageLoad, ScaledDecodingOfTurnedPhotosStaysInPlace) {
  const std::string jpeg =
      encode_jpeg(drawn_photo(601, 803), 85);  // no multiples of 8: the last block is cut
  AugmentConfig config;
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const std::string content = with_orientation(jpeg, orientation);
    const EncodedImage encoded = {bytes_of(content), "turned"};
    ASSERT_EQ(read_image_header(encoded.bytes, encoded.source).orientation, orientation);
    config.scaled_decode = true;
    const Image view = load_centre_view(encoded, config, 18);
    config.scaled_decode = false;
    const Image expected = load_centre_view(encoded, config, 18);
    EXPECT_NE(view.pixels, expected.pixels);
    EXPECT_LE(difference(view.pixels, expected.pixels).mean, 1.0) << orientation;
  }
}

TEST(ImageLoad, NormalisesEachPlane) {
  const std::vector<uint8_t> planes = {0, 255, 51, 102, 255, 0};
  std::vector<float> result(6);
  normalise(planes, {0.5F, 0.2F, 0.0F}, {0.5F, 0.2F, 2.0F}, result);
  const float expected[] = {-1.0F, 1.0F, 0.0F, 1.0F, 0.5F, 0.0F};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(result[i], expected[i], 1e-6F) << i;
}

}  // namespace
}  // namespace fathom::image_load_test
