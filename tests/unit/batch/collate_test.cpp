#include "batch/collate.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace fathom::collate_test {
namespace {

Sample sample(int64_t index, std::vector<int32_t> tokens, int64_t side = 2) {
  Image image{
      .height = side, .width = side, .pixels = std::vector<uint8_t>(static_cast<size_t>(side * side * 3))};
  for (size_t i = 0; i < image.pixels.size(); ++i)
    image.pixels[i] = static_cast<uint8_t>(10 * index + static_cast<int64_t>(i));
  return {
      .index = index, .images = {std::move(image)}, .token_rows = {std::move(tokens)}, .labels = {index % 2}};
}

TEST(Collate, StacksSeveralViewsAndSentencesOfASample) {
  std::vector<Sample> samples;
  for (int64_t i = 0; i < 3; ++i) {
    samples.push_back(sample(i, {static_cast<int32_t>(i)}));
    samples.back().images.push_back(sample(i + 10, {1}).images[0]);
    samples.back().token_rows.push_back({static_cast<int32_t>(i + 10), 7});
  }
  const Batch batch = collate(samples);
  EXPECT_EQ(batch.size(), 3);
  EXPECT_EQ(batch.image_BCHW.size(0), 6);
  EXPECT_EQ(batch.tokens_BT.size(0), 6);
  EXPECT_EQ(batch.tokens_BT[3][0].item<int64_t>(), 11);
  EXPECT_EQ(batch.image_BCHW[3][0][0][0].item<int64_t>(), 110);
  const Batch part = slice_batch(batch, 1, 2);
  EXPECT_EQ(part.image_BCHW.size(0), 4);
  EXPECT_TRUE(at::equal(part.tokens_BT[1], batch.tokens_BT[3]));
  samples[1].token_rows.pop_back();
  EXPECT_THROW(collate(samples), Error);
}

TEST(Collate, FillsGapsWhereSamplesMayLackModalities) {
  std::vector<Sample> samples = {sample(1, {1, 2}), sample(2, {3}), sample(3, {4, 5, 6})};
  samples[0].images.clear();
  samples[2].token_rows.clear();
  samples[1].spectrogram = Spectrogram{.num_bands = 2, .num_frames = 3, .values = {1, 2, 3, 4, 5, 6}};
  EXPECT_THROW(collate(samples), Error);
  const Batch batch = collate(samples, {.padding_id = 9, .missing = true});
  EXPECT_TRUE(at::equal(batch.has_image_B, at::tensor({0, 1, 1}).to(at::kBool)));
  EXPECT_TRUE(at::equal(batch.has_text_B, at::tensor({1, 1, 0}).to(at::kBool)));
  EXPECT_TRUE(at::equal(batch.has_sound_B, at::tensor({0, 1, 0}).to(at::kBool)));
  EXPECT_EQ(batch.image_BCHW.sizes(), (at::IntArrayRef{3, 3, 2, 2}));
  EXPECT_EQ(batch.image_BCHW[0].sum().item<int64_t>(), 0);
  EXPECT_EQ(batch.image_BCHW[1][0][0][0].item<int64_t>(), 20);
  EXPECT_EQ(batch.tokens_BT.sizes(), (at::IntArrayRef{3, 2})) << "as long as the texts that are there";
  EXPECT_EQ(batch.tokens_BT[2][0].item<int64_t>(), 9);
  EXPECT_EQ(batch.length_B[2].item<int64_t>(), 0);
  EXPECT_EQ(batch.mel_BFS[1][1][0].item<float>(), 4);
  EXPECT_EQ(batch.mel_BFS[2].abs().sum().item<float>(), 0);
  EXPECT_EQ(batch.frames_B[1].item<int64_t>(), 3);
  const Batch part = slice_batch(batch, 1, 2);
  EXPECT_TRUE(at::equal(part.has_text_B, at::tensor({1, 0}).to(at::kBool)));
  samples.erase(samples.begin() + 1);
  const Batch silent = collate(samples, {.missing = true});
  EXPECT_FALSE(silent.mel_BFS.defined());
  EXPECT_FALSE(silent.has_sound_B.defined());
}

TEST(Collate, StacksAndPads) {
  const std::vector<Sample> samples = {sample(4, {1, 2, 3}), sample(7, {5})};
  const Batch batch = collate(samples, {.padding_id = 9, .pad_multiple = 4});
  EXPECT_EQ(batch.size(), 2);
  EXPECT_EQ(batch.index_B[1].item<int64_t>(), 7);
  EXPECT_EQ(batch.label_B[1].item<int64_t>(), 1);
  EXPECT_EQ(batch.tokens_BT.sizes(), (at::IntArrayRef{2, 4}));
  EXPECT_EQ(batch.tokens_BT[0][2].item<int64_t>(), 3);
  EXPECT_EQ(batch.tokens_BT[0][3].item<int64_t>(), 9);
  EXPECT_EQ(batch.tokens_BT[1][1].item<int64_t>(), 9);
  EXPECT_EQ(batch.length_B[0].item<int64_t>(), 3);
  EXPECT_EQ(batch.length_B[1].item<int64_t>(), 1);
  EXPECT_EQ(batch.image_BCHW.sizes(), (at::IntArrayRef{2, 3, 2, 2}));
  EXPECT_EQ(batch.image_BCHW[1][2][1][0].item<int64_t>(), 70 + (1 * 2 + 0) * 3 + 2)
      << "channel 2 of row 1, column 0";
}

TEST(Collate, PadsToAFixedLength) {
  const std::vector<Sample> samples = {sample(0, {1, 2, 3})};
  EXPECT_EQ(collate(samples, {.pad_to = 6}).tokens_BT.size(1), 6);
  EXPECT_THROW(collate(samples, {.pad_to = 2}), Error);
}

TEST(Collate, RefusesWhatDoesNotStack) {
  EXPECT_THROW(collate({}), Error);
  EXPECT_THROW(collate(std::vector<Sample>{sample(0, {1}), sample(1, {1}, 3)}), Error);
  Sample wordless = sample(1, {1});
  wordless.token_rows.clear();
  EXPECT_THROW(collate(std::vector<Sample>{sample(0, {1}), wordless}), Error);
}

TEST(Collate, AbsentModalitiesStayUndefined) {
  const Batch batch = collate(std::vector<Sample>{{.index = 3, .token_rows = {{1, 2}}}});
  EXPECT_FALSE(batch.image_BCHW.defined());
  EXPECT_EQ(batch.label_B[0].item<int64_t>(), -1);
  EXPECT_FALSE(collate(std::vector<Sample>{{.index = 3}}).tokens_BT.defined());
}

TEST(ToDevice, NormalisesEachChannel) {
  const PixelStatistics pixels{.mean = {0.5, 0.25, 0.0}, .deviation = {0.5, 0.25, 2.0}};
  const Batch raw = collate(std::vector<Sample>{sample(1, {1}), sample(2, {2})});
  const Batch batch = to_device(raw, at::kCPU, pixels);
  EXPECT_EQ(batch.image_BCHW.scalar_type(), at::kFloat);
  EXPECT_TRUE(batch.image_BCHW.is_contiguous());
  for (int64_t c = 0; c < 3; ++c) {
    const auto i = static_cast<size_t>(c);
    const at::Tensor expected =
        raw.image_BCHW.select(1, c).to(at::kDouble).div(255.0).sub(pixels.mean[i]).div(pixels.deviation[i]);
    EXPECT_TRUE(at::allclose(batch.image_BCHW.select(1, c).to(at::kDouble), expected, 1e-5, 1e-6));
  }
  EXPECT_TRUE(at::equal(to_device(batch, at::kCPU, pixels).image_BCHW, batch.image_BCHW)) << "not twice";
}

TEST(SliceBatch, TakesRowsOfEverything) {
  const Batch batch = collate(std::vector<Sample>{sample(1, {1}), sample(2, {2, 3}), sample(3, {4})});
  const Batch part = slice_batch(batch, 1, 2);
  EXPECT_EQ(part.size(), 2);
  EXPECT_EQ(part.index_B[0].item<int64_t>(), 2);
  EXPECT_EQ(part.tokens_BT[1][0].item<int64_t>(), 4);
  EXPECT_TRUE(at::equal(part.image_BCHW[1], batch.image_BCHW[2]));
  EXPECT_THROW(slice_batch(batch, 2, 2), Error);
}

}  // namespace
}  // namespace fathom::collate_test
