// Against what transformers computes (tests/golden/masked_image_golden.py), and what masks must be.
#include "train/task/masked_image.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "formula_weights.h"
#include "models/model_folder.h"
#include "models/swin/hf_map.h"
#include "temporary_folder.h"
#include "tensor/random_keys.h"

namespace fathom::masked_image_test {
namespace {

SwinConfig small_vision(double drop_path = 0.0) {
  return {.image_size = 64,
          .patch_size = 4,
          .dim = 16,
          .depths = {2, 2},
          .heads = {2, 4},
          .window = 4,
          .drop_path = drop_path};
}

at::Tensor formula_by_name(const Json& shapes, const std::string& name) {
  std::vector<int64_t> shape;
  for (const Json& size : shapes.at(name).as_array()) shape.push_back(size.as_int());
  return testing::formula_weight(name, shape);
}

/// The model with the weights that the golden script gives transformers' one.
MaskedImageModel formula_model(const Json& shapes) {
  MaskedImageModel model(small_vision());
  const torch::NoGradGuard no_grad;
  auto parameters = model->named_parameters();
  for (const WeightRule& rule : swin_weight_map_hf(small_vision(), "swin.")) {
    std::vector<at::Tensor> parts;
    for (const WeightRule::Source& source : rule.sources)
      parts.push_back(formula_by_name(shapes, source.name));
    at::Tensor& parameter = parameters["vision." + rule.parameter];
    parameter.copy_(at::cat(parts).view(parameter.sizes()));
  }
  parameters["mask_token"].copy_(formula_by_name(shapes, "swin.embeddings.mask_token").flatten());
  parameters["decoder.weight"].copy_(formula_by_name(shapes, "decoder.0.weight").flatten(1));
  parameters["decoder.bias"].copy_(formula_by_name(shapes, "decoder.0.bias"));
  return model;
}

double with_direction(const at::Tensor& x) {
  return x.to(at::kDouble).flatten().dot(testing::formula_uniform("direction", x.numel())).item<double>();
}

TEST(MaskedImageGolden, LossAndGradientsAreThoseOfTransformers) {
  const Json golden = read_json_file(FATHOM_GOLDENS "/masked_image.json");
  MaskedImageModel model = formula_model(golden.at("weights"));
  const at::Tensor image = testing::formula_image({3, 3, 64, 64});
  const at::Tensor mask = testing::formula_uniform("mask", 3 * 16)
                              .gt(0)
                              .view({3, 4, 4})
                              .repeat_interleave(4, 1)
                              .repeat_interleave(4, 2);
  const auto near = [](double ours, double theirs) {
    EXPECT_NEAR(ours, theirs, 2e-4 * std::abs(theirs) + 1e-6);
  };
  near(with_direction(model->reconstruct(image, mask).detach()), golden.at("reconstruction").as_double());
  const at::Tensor loss =
      model->hidden_error(image, mask) / golden.at("hidden_squares").as_double() / (16 * 16 * 3);
  loss.backward();
  near(loss.item<double>(), golden.at("loss").as_double());
  auto parameters = model->named_parameters();
  const std::map<std::string, std::string> names = {
      {"swin.embeddings.mask_token", "mask_token"},
      {"swin.embeddings.patch_embeddings.projection.weight", "vision.patch_embed.weight"},
      {"swin.encoder.layers.1.blocks.1.mlp.fc2.weight", "vision.stages.1.blocks.1.mlp.down.weight"},
      {"decoder.0.weight", "decoder.weight"},
      {"decoder.0.bias", "decoder.bias"}};
  for (const auto& [theirs, gradient] : golden.at("gradients").as_object()) {
    SCOPED_TRACE(theirs);
    const at::Tensor ours = parameters[names.at(theirs)].grad();
    near(ours.norm().item<double>(), gradient.at("norm").as_double());
    near(with_direction(ours), gradient.at("product").as_double());
  }
}

TEST(Masking, HidesWholeSquaresOfTheShareByKey) {
  const MaskedImageConfig config{.mask_size = 16, .mask_ratio = 0.6};
  const at::Tensor key = make_sample_keys(torch::arange(50), 3, 4);
  const at::Tensor mask_BRC = draw_mask(key, config, small_vision());
  ASSERT_EQ(mask_BRC.sizes(), at::IntArrayRef({50, 16, 16}));
  const at::Tensor square = mask_BRC.view({50, 4, 4, 4, 4}).to(at::kLong).sum({2, 4});
  EXPECT_TRUE(square.eq(0).logical_or(square.eq(16)).all().item<bool>()) << "patches of a square go together";
  EXPECT_TRUE(square.eq(16).sum({1, 2}).eq(10).all().item<bool>()) << "10 = ceil(0.6 * 16) of each picture";
  EXPECT_TRUE(at::equal(draw_mask(key.slice(0, 20, 30), config, small_vision()), mask_BRC.slice(0, 20, 30)));
  EXPECT_FALSE(at::equal(mask_BRC[0], mask_BRC[1]));
  EXPECT_GT(square.eq(16).to(at::kDouble).mean(0).min().item<double>(), 0.3) << "every place takes its turn";
}

TEST(Masking, RefusesSquaresThatDoNotFit) {
  EXPECT_NO_THROW(check_masking({.mask_size = 8}, small_vision()));
  EXPECT_THROW(check_masking({.mask_size = 24}, small_vision()), Error);
  EXPECT_THROW(check_masking({.mask_size = 2}, small_vision()), Error);
  SwinConfig odd = small_vision();
  odd.image_size = 36;
  EXPECT_THROW(check_masking({.mask_size = 12}, odd), Error);
}

class MaskedImage : public ::testing::Test {
 protected:
  MaskedImage() {
    init_parameters(*model_, 1);
    model_->to(at::kDouble);
    torch::manual_seed(2);
    batch_.index_B = torch::arange(6);
    batch_.image_BCHW = torch::randn({6, 3, 64, 64}, at::kDouble);
  }
  MicroBatch part(int64_t start, int64_t count) const {
    Batch batch = slice_batch(batch_, start, count);
    const at::Tensor key_B = make_sample_keys(batch.index_B, 5, 6);
    return {std::move(batch), {.training = true, .key_B = key_B}};
  }
  MaskedImageModel model_{small_vision(0.2)};
  Batch batch_;
};

TEST_F(MaskedImage, SharesAddUpToTheMeanOverHiddenPixels) {
  MaskedImageTask task({.model = model_, .config = {.mask_size = 16}});
  const auto collective = make_solo_collective();
  const StepContext step{.global_samples = 6, .collective = *collective};
  const double whole = task.loss(part(0, 6), step).item<double>();
  EXPECT_NEAR(task.loss(part(0, 2), step).item<double>() + task.loss(part(2, 4), step).item<double>(), whole,
              1e-10);
  const MicroBatch all = part(0, 6);
  const at::Tensor mask = draw_mask(all.forward.key_B, {.mask_size = 16}, small_vision());
  const at::Tensor drawn = model_->reconstruct(batch_.image_BCHW, mask, all.forward);
  double sum = 0;
  int64_t count = 0;
  for (int64_t b = 0; b < 6; ++b)
    for (int64_t y = 0; y < 64; ++y)
      for (int64_t x = 0; x < 64; ++x) {
        if (!mask[b][y / 4][x / 4].item<bool>()) continue;
        sum += (batch_.image_BCHW.select(0, b).slice(1, y, y + 1).slice(2, x, x + 1) -
                drawn.select(0, b).slice(1, y, y + 1).slice(2, x, x + 1))
                   .abs()
                   .sum()
                   .item<double>();
        count += 3;
      }
  EXPECT_NEAR(whole, sum / static_cast<double>(count), 1e-9);
}

TEST_F(MaskedImage, WhatIsHiddenCannotBeSeen) {
  const torch::NoGradGuard no_grad;
  const at::Tensor mask =
      draw_mask(make_sample_keys(batch_.index_B, 1, 1), {.mask_size = 16}, small_vision());
  const at::Tensor pixels = mask.repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1);
  const at::Tensor other = at::where(pixels, torch::randn_like(batch_.image_BCHW), batch_.image_BCHW);
  for (const bool convolutions : {false, true}) {
    SwinConfig vision = small_vision();
    vision.convolution_stem = convolutions;
    MaskedImageModel model(vision);
    init_parameters(*model, 1);
    model->to(at::kDouble);
    EXPECT_TRUE(at::allclose(model->reconstruct(batch_.image_BCHW, mask), model->reconstruct(other, mask)));
    EXPECT_FALSE(
        at::allclose(model->vision()->features(batch_.image_BCHW), model->vision()->features(other)));
  }
}

TEST_F(MaskedImage, SavesASwinThatComputesTheSame) {
  const TemporaryFolder folder;
  MaskedImageTask task({.model = model_, .config = {.mask_size = 16}});
  task.save_model(folder / "model", Json::object());
  const LoadedModel loaded = load_model_folder(folder / "model", {.dtype = at::kDouble});
  ASSERT_EQ(loaded.kind, ModelKind::kSwin);
  const torch::NoGradGuard no_grad;
  Swin vision = loaded.vision;
  EXPECT_TRUE(at::allclose(vision->features(batch_.image_BCHW), model_->vision()->features(batch_.image_BCHW),
                           1e-6, 1e-6));
}

class Pictures : public SampleSource {
 public:
  int64_t size() const override { return 5; }
  Sample load(int64_t index, int64_t) const override {
    Sample sample{.index = index};
    sample.images.push_back({.height = 64, .width = 64, .pixels = std::vector<uint8_t>(64 * 64 * 3)});
    for (size_t i = 0; i < sample.images[0].pixels.size(); ++i)
      sample.images[0].pixels[i] = static_cast<uint8_t>(i * static_cast<size_t>(index + 3));
    return sample;
  }
};

TEST_F(MaskedImage, ErrorOnHeldOutPicturesDependsOnNoBatch) {
  model_->to(at::kFloat);
  const auto error = [&](int64_t size) {
    return masked_image_error(model_, {.mask_size = 16}, std::make_shared<Pictures>(), {.batch_size = size});
  };
  EXPECT_GT(error(5), 0.1);
  EXPECT_NEAR(error(5), error(2), 1e-5);
}

}  // namespace
}  // namespace fathom::masked_image_test
