// Views: what the random ones may show, that they depend on their seed alone, and that reading only a part
// of a file changes nothing.
#include "data/image/augment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "base/file.h"
#include "data/image/encode.h"
#include "data/image/view.h"
#include "test_images.h"

namespace fathom {
namespace {

AugmentConfig everything() {
  AugmentConfig config;
  config.crop_scale_min = 0.08;
  config.flip = 0.5;
  config.brightness = config.contrast = config.saturation = 0.4;
  config.hue = 0.1;
  config.grayscale = 0.2;
  return config;
}

// A colour that says where it is: red grows with x, green with y.
Image ramp(int64_t height, int64_t width) {
  Image image = blank_image(height, width);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      image.pixels[(y * width + x) * 3] = static_cast<uint8_t>(255 * x / (width - 1));
      image.pixels[(y * width + x) * 3 + 1] = static_cast<uint8_t>(255 * y / (height - 1));
    }
  }
  return image;
}

TEST(ImageCrop, StaysInsideWithAreaAndRatioAsAsked) {
  AugmentConfig config;
  config.crop_scale_min = 0.2;
  config.crop_scale_max = 0.6;
  Random random({3});
  double smallest = 1;
  double largest = 0;
  for (int i = 0; i < 2000; ++i) {
    const PixelRect rect = draw_crop({300, 400}, config, random);
    ASSERT_GE(rect.left, 0);
    ASSERT_GE(rect.top, 0);
    ASSERT_LE(rect.left + rect.width, 400);
    ASSERT_LE(rect.top + rect.height, 300);
    const double share = static_cast<double>(rect.width * rect.height) / (300.0 * 400.0);
    const double ratio = static_cast<double>(rect.width) / static_cast<double>(rect.height);
    ASSERT_NEAR(ratio, 1.0, 0.36);
    smallest = std::min(smallest, share);
    largest = std::max(largest, share);
  }
  EXPECT_NEAR(smallest, 0.2, 0.01);
  EXPECT_NEAR(largest, 0.6, 0.01);
}

TEST(ImageCrop, FallsBackToTheCentreOfSlivers) {
  Random random({3});
  AugmentConfig config;
  EXPECT_EQ(draw_crop({10, 1000}, config, random), (PixelRect{493, 0, 13, 10}));
  EXPECT_EQ(draw_crop({1000, 9}, config, random), (PixelRect{0, 494, 9, 12}));
  EXPECT_EQ(draw_crop({1, 1}, config, random), (PixelRect{0, 0, 1, 1}));
}

TEST(ImageAugment, DependsOnTheSeedAlone) {
  const Image image = drawn_photo(120, 160);
  const AugmentConfig config = everything();
  std::set<std::vector<uint8_t>> views;
  for (uint64_t index = 0; index < 20; ++index) {
    Random first({7, 1, index});
    Random second({7, 1, index});
    const Image view = augment(image, config, 48, first);
    EXPECT_EQ(view.pixels, augment(image, config, 48, second).pixels);
    EXPECT_EQ(view.height, 48);
    EXPECT_EQ(view.width, 48);
    EXPECT_EQ(view.pixels.size(), 48u * 48 * 3);
    views.insert(view.pixels);
  }
  EXPECT_EQ(views.size(), 20u);
}

TEST(ImageAugment, FlipExchangesLeftAndRight) {
  AugmentConfig config;
  config.crop_scale_min = 1.0;
  config.crop_ratio_min = config.crop_ratio_max = 1.0;
  const Image image = ramp(64, 64);
  Random random({1});
  const Image plain = augment(image, config, 64, random);
  EXPECT_EQ(plain.pixels, image.pixels);
  config.flip = 1.0;
  const Image flipped = augment(image, config, 64, random);
  EXPECT_GT(flipped.pixels[0], 250);
  EXPECT_EQ(flipped.pixels[1], 0);
  EXPECT_LT(flipped.pixels[63 * 3], 5);
}

TEST(ImageAugment, EveryStrengthDoesSomething) {
  const Image image = drawn_photo(64, 64);
  AugmentConfig still;
  still.crop_scale_min = 1.0;
  still.crop_ratio_min = still.crop_ratio_max = 1.0;
  const auto change = [&](double AugmentConfig::*strength, double value) {
    AugmentConfig config = still;
    config.*strength = value;
    Random random({11});
    return difference(augment(image, config, 64, random).pixels, image.pixels).mean;
  };
  EXPECT_EQ(change(&AugmentConfig::brightness, 0.0), 0.0);
  EXPECT_GT(change(&AugmentConfig::brightness, 0.6), 1.0);
  EXPECT_GT(change(&AugmentConfig::contrast, 0.6), 1.0);
  EXPECT_GT(change(&AugmentConfig::saturation, 0.6), 1.0);
  EXPECT_GT(change(&AugmentConfig::hue, 0.3), 1.0);
  EXPECT_GT(change(&AugmentConfig::grayscale, 1.0), 1.0);
}

TEST(ImageAugment, GrayscaleLeavesNoColour) {
  AugmentConfig config;
  config.grayscale = 1.0;
  Random random({2});
  const Image view = augment(drawn_photo(50, 50), config, 32, random);
  for (size_t i = 0; i < view.pixels.size(); i += 3) {
    ASSERT_EQ(view.pixels[i], view.pixels[i + 1]);
    ASSERT_EQ(view.pixels[i], view.pixels[i + 2]);
  }
}

TEST(ImageAugment, JitterProbabilityIsARate) {
  AugmentConfig config;
  config.jitter = 0.3;
  config.brightness = 0.5;
  int64_t num_jittered = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    Random random({i});
    num_jittered += draw_colour(config, random).num_steps;
  }
  EXPECT_NEAR(static_cast<double>(num_jittered), 600, 80);
}

TEST(ImageColour, Avx2EqualsPortable) {
  const Image image = drawn_photo(37, 41);
  AugmentConfig config = everything();
  config.hue = 0.5;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Random random({seed});
    const ColourPlan plan = draw_colour(config, random);
    PlanarImage fast = resample(view_of(image), {0, 0, 41, 37}, {37, 41, Filter::kBicubic});
    PlanarImage portable = fast;
    apply_colour(fast, plan);
    apply_colour_portable(portable, plan);
    ASSERT_EQ(fast.pixels, portable.pixels);
  }
}

TEST(ImageView, CentreCropTakesTheMiddle) {
  AugmentConfig config;
  const Image wide = centre_view(ramp(100, 300), config, 50);
  EXPECT_NEAR(wide.pixels[0], 255 / 3, 4);
  EXPECT_NEAR(wide.pixels[49 * 3], 255 * 2 / 3, 4);
  EXPECT_LT(wide.pixels[1], 6);
  config.evaluation_crop = 0.5;
  const Image closer = centre_view(ramp(100, 300), config, 50);
  EXPECT_NEAR(closer.pixels[0], 255 * 5 / 12, 4);
  EXPECT_NEAR(closer.pixels[1], 255 / 4, 4);
  config.evaluation = EvaluationView::kSquash;
  const Image squashed = centre_view(ramp(100, 300), config, 50);
  EXPECT_LT(squashed.pixels[0], 6);
  EXPECT_GT(squashed.pixels[49 * 3], 249);
}

TEST(ImageView, CentreCropEqualsResizeThenCut) {
  const Image image = drawn_photo(96, 160);
  AugmentConfig config;
  config.evaluation_crop = 0.75;
  const Image resized = resize(image, 64, 107, config.filter);  // 96 → 64, so the view is 48
  const Image expected = crop(resized, {29, 8, 48, 48});
  EXPECT_LT(difference(centre_view(image, config, 48).pixels, expected.pixels).mean, 6.0);
  EXPECT_EQ(centre_view(drawn_photo(96, 96), config, 48).pixels,
            crop(resize(drawn_photo(96, 96), 64, 64, config.filter), {8, 8, 48, 48}).pixels);
}

// ---- files ----

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

TEST(AugmentConfig, RefusesReversedRanges) {
  AugmentConfig config;
  config.validate();
  config.crop_scale_min = 0.9;
  config.crop_scale_max = 0.3;
  EXPECT_THROW(config.validate(), Error);
}

}  // namespace
}  // namespace fathom
