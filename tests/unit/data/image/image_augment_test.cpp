// Views: what the random ones may show, and that they depend on their seed alone.
#include "data/image/augment.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "data/image/view.h"
#include "test_images.h"

namespace fathom::image_augment_test {
namespace {

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

TEST(ImageAugment, ErasesASquareOfTheAreaAskedFor) {
  const Image image = drawn_photo(64, 64);
  AugmentConfig config{.crop_scale_min = 1, .crop_ratio_min = 1, .crop_ratio_max = 1};
  Random plain(3);
  const Image whole = augment(image, config, 64, plain);
  config.erase = 1;
  config.erase_area_max = 0.25;
  double smallest = 1, largest = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Random random(seed);
    const Image view = augment(image, config, 64, random);
    int64_t changed = 0;
    for (size_t i = 0; i < view.pixels.size(); i += 3) changed += view.pixels[i] != whole.pixels[i];
    smallest = std::min(smallest, static_cast<double>(changed) / 4096);
    largest = std::max(largest, static_cast<double>(changed) / 4096);
  }
  EXPECT_GT(smallest, 0.005);
  EXPECT_LT(smallest, 0.08);
  EXPECT_GT(largest, 0.17);
  EXPECT_LT(largest, 0.27);
}

TEST(ImageAugment, JitterDrawsEveryOrderAndTheWholeRange) {
  AugmentConfig config = everything();
  config.grayscale = 0;
  std::set<std::vector<ColourOp>> orders;
  double lowest = 1;
  double highest = 1;
  for (uint64_t i = 0; i < 1000; ++i) {
    Random random({i});
    const ColourPlan plan = draw_colour(config, random);
    ASSERT_EQ(plan.num_steps, 4);
    std::vector<ColourOp> order;
    for (int64_t k = 0; k < 4; ++k) {
      order.push_back(plan.steps[k].op);
      if (plan.steps[k].op == ColourOp::kHue) {
        ASSERT_LE(std::abs(plan.steps[k].amount), 0.1F);
      } else {
        lowest = std::min<double>(lowest, plan.steps[k].amount);
        highest = std::max<double>(highest, plan.steps[k].amount);
      }
    }
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 24u);
  EXPECT_NEAR(lowest, 0.6, 0.01);
  EXPECT_NEAR(highest, 1.4, 0.01);
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

TEST(ImageView, CentreCropReadsAllThatTheFilterSees) {
  const Image image = drawn_photo(150, 240);
  AugmentConfig config;
  config.evaluation_crop = 0.5;
  for (const int64_t size : {7, 30, 120}) {
    const Image expected = resize(image, size, size, config.filter, {82.5, 37.5, 157.5, 112.5});
    EXPECT_EQ(centre_view(image, config, size).pixels, expected.pixels) << size;
  }
}

TEST(AugmentConfig, RefusesReversedRanges) {
  AugmentConfig config;
  config.validate();
  config.crop_scale_min = 0.9;
  config.crop_scale_max = 0.3;
  EXPECT_THROW(config.validate(), Error);
}

}  // namespace
}  // namespace fathom::image_augment_test
