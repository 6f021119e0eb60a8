// Resizing: the two implementations agree, and what any resampling must keep.
#include "data/image/resize.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/error.h"
#include "data/image/resample.h"
#include "data/image/resample_kernels.h"
#include "test_images.h"

namespace fathom::image_resize_test {
namespace {

// Both kernels on one problem: rows of random bytes, random weights' geometry.
struct KernelResult {
  std::vector<uint8_t> rows;
  std::vector<uint8_t> columns;
};

KernelResult run_kernels(const ResampleKernels& kernels, const Image& image, const ResampleWeights& across,
                         const ResampleWeights& down) {
  const int64_t in_bytes = image.width * 3;
  const int64_t out_bytes = across.size() * 3;
  KernelResult result;
  result.rows.resize(static_cast<size_t>((image.height + kRowGroup) * out_bytes + kRowSlack));
  std::vector<std::vector<uint32_t>> scratch(kRowGroup, std::vector<uint32_t>(across.first.size()));
  std::vector<uint8_t> padded = image.pixels;
  padded.resize(padded.size() + static_cast<size_t>(across.num_taps * 3 + kRowSlack));
  for (int64_t y = 0; y < image.height; y += kRowGroup) {
    HorizontalRows group;
    for (int64_t r = 0; r < kRowGroup; ++r) {
      group.in[r] = padded.data() + std::min(y + r, image.height - 1) * in_bytes;
      group.scratch[r] = scratch[r].data();
      group.out[r] = result.rows.data() + (y + r) * out_bytes;
    }
    kernels.horizontal(group, across);
  }
  result.columns.resize(static_cast<size_t>(down.size() * out_bytes));
  for (int64_t y = 0; y < down.size(); ++y) {
    const VerticalRow row = {result.rows.data(), out_bytes, image.height, out_bytes,
                             result.columns.data() + y * out_bytes};
    kernels.vertical(row, down, y);
  }
  return result;
}

RC_GTEST_PROP(ImageResize, Avx2EqualsPortable, ()) {
  if (!__builtin_cpu_supports("avx2")) RC_DISCARD("no AVX2 here");
  const auto size = [] { return *rc::gen::inRange<int64_t>(1, 90); };
  Image image = blank_image(size(), size());
  Random random({*rc::gen::arbitrary<uint64_t>()});
  for (uint8_t& value : image.pixels) value = random.chance(0.5) ? random.below(256) : 255 * random.below(2);
  const Filter filter = *rc::gen::element(Filter::kBilinear, Filter::kBicubic);
  const auto axis = [&](int64_t length) {
    const double begin = random.uniform(0, static_cast<double>(length) * 0.4);
    const double end = random.uniform(static_cast<double>(length) * 0.5, static_cast<double>(length));
    return make_weights({length, begin, end, size()}, filter);
  };
  const ResampleWeights across = axis(image.width);
  const ResampleWeights down = axis(image.height);
  const KernelResult portable = run_kernels(kPortableResample, image, across, down);
  const KernelResult avx2 = run_kernels(kAvx2Resample, image, across, down);
  RC_ASSERT(portable.rows == avx2.rows);
  RC_ASSERT(portable.columns == avx2.columns);
}

TEST(ImageResize, SameSizeChangesNothing) {
  const Image image = drawn_photo(45, 67);
  for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
    EXPECT_EQ(resize(image, 45, 67, filter).pixels, image.pixels);
  }
}

TEST(ImageResize, WholePixelBoxIsACrop) {
  const Image image = drawn_photo(45, 67);
  const Image part = resize(image, 20, 31, Filter::kBicubic, {11, 7, 42, 27});
  EXPECT_EQ(part.pixels, crop(image, {11, 7, 31, 20}).pixels);
}

TEST(ImageResize, EvenColourStaysEven) {
  Image image = blank_image(33, 21);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<uint8_t>(90 + 40 * (i % 3));
  const Image larger = resize(image, 70, 50, Filter::kBicubic);
  for (size_t i = 0; i < larger.pixels.size(); ++i) ASSERT_EQ(larger.pixels[i], 90 + 40 * (i % 3));
}

TEST(ImageResize, ShrinkingAveragesInsteadOfSkipping) {
  Image stripes = blank_image(64, 64);  // every other column white: sampling would give all or nothing
  for (size_t i = 0; i < stripes.pixels.size(); ++i) stripes.pixels[i] = (i / 3) % 2 ? 255 : 0;
  const Image small = resize(stripes, 8, 8, Filter::kBilinear);
  for (const uint8_t value : small.pixels) ASSERT_NEAR(value, 127, 5);
}

TEST(ImageResize, MirrorIsTheMirroredResult) {
  const Image image = drawn_photo(40, 60);
  const Box box = {3.5, 2, 51, 39};
  const Image plain = interleave(resample(view_of(image), box, {17, 23, Filter::kBicubic, false}));
  const Image mirrored = interleave(resample(view_of(image), box, {17, 23, Filter::kBicubic, true}));
  for (int64_t y = 0; y < 17; ++y) {
    for (int64_t x = 0; x < 23; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        ASSERT_EQ(plain.pixels[(y * 23 + x) * 3 + c], mirrored.pixels[(y * 23 + 22 - x) * 3 + c]);
      }
    }
  }
}

TEST(ImageResize, RefusesBoxesOutsideTheImage) {
  const Image image = drawn_photo(10, 12);
  EXPECT_THROW(resize(image, 4, 4, Filter::kBicubic, {0, 0, 12.5, 10}), Error);
  EXPECT_THROW(resize(image, 4, 4, Filter::kBicubic, {5, 0, 5, 10}), Error);
  EXPECT_THROW(resize(image, 0, 4, Filter::kBicubic), Error);
}

}  // namespace
}  // namespace fathom::image_resize_test
