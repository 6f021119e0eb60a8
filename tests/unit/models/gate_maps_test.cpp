// Where windows, places and moments lie on what a model sees and hears.
#include "models/gate_maps.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

namespace fathom::gate_maps_test {
namespace {

/// Maps of 7 × 7, then 4 × 4, in windows of 3 with padding.
SwinConfig swin() {
  SwinConfig config;
  config.image_size = 28;
  config.depths = {2, 2};
  config.heads = {2, 4};
  config.dim = 8;
  config.window = 3;
  return config;
}

/// The window of a place of a map with so many places a side, when it is padded and then shifted.
int64_t window_at(int64_t row, int64_t column, int64_t side, int64_t shift) {
  const int64_t across = (side + 2) / 3, padded = 3 * across;
  const auto along = [&](int64_t place) { return (place - shift + padded) % padded / 3; };
  return along(row) * across + along(column);
}

TEST(GateMaps, WindowsLieWhereTheyAttend) {
  for (const int64_t index : {0, 1, 2, 3}) {
    const int64_t side = index < 2 ? 7 : 4, cell = index < 2 ? 4 : 8, windows = index < 2 ? 9 : 4;
    const auto active_T = at::arange(windows).remainder(2).eq(0);
    const auto kept_HW = kept_pixels(swin(), index, active_T, 28, 28);
    ASSERT_EQ(kept_HW.sizes(), (at::IntArrayRef{28, 28})) << index;
    for (int64_t y = 0; y < 28; ++y)
      for (int64_t x = 0; x < 28; ++x)
        ASSERT_EQ(kept_HW[y][x].item<float>(),
                  window_at(y / cell, x / cell, side, index % 2) % 2 == 0 ? 1 : 0)
            << index << " " << y << " " << x;
  }
}

TEST(GateMaps, PlacesLieWhereTheirPatchesAre) {
  const auto at_place = [](int64_t index, int64_t places, int64_t place) {
    return kept_pixels(swin(), index, at::arange(places).eq(place), 28, 28);
  };
  auto expected_HW = at::zeros({28, 28});
  expected_HW.slice(0, 8, 16).slice(1, 8, 16).fill_(1);
  EXPECT_TRUE(at::equal(at_place(2, 16, 5), expected_HW));
  expected_HW.zero_();
  expected_HW.slice(0, 24, 28).slice(1, 24, 28).fill_(1);
  EXPECT_TRUE(at::equal(at_place(0, 49, 48), expected_HW));
  EXPECT_TRUE(at::equal(at_place(3, 16, 15), expected_HW)) << "half of the last place is beyond the picture";
}

TEST(GateMaps, MomentsAndSubBandsLieInTheSpectrogram) {
  AudioEncoderConfig config;
  config.front_end = AudioFrontEnd::kSubBands;
  config.sub_bands = 2;
  config.bands = 4;
  config.stride = 2;
  const auto kept_FS = kept_energies(config, at::arange(6).eq(5), 5);  // 2 sub-bands × 3 moments
  auto expected_FS = at::zeros({4, 5});
  expected_FS.slice(0, 2).slice(1, 4).fill_(1);
  EXPECT_TRUE(at::equal(kept_FS, expected_FS));
}

}  // namespace
}  // namespace fathom::gate_maps_test
