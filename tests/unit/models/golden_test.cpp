// What transformers and timm compute with the same weights: tests/golden/models_golden.py.
#include <gmock/gmock.h>

#include "model_fixture.h"
#include "models/model_folder.h"
#include "models/swin/hf_map.h"

namespace fathom::golden_test {
namespace {

const std::string kGoldens = FATHOM_GOLDENS "/models/";

at::Tensor golden(const std::string& name) {
  return load_tensors(kGoldens + "outputs.safetensors").at(name);
}

void expect_near(const at::Tensor& ours, const at::Tensor& theirs) {
  ASSERT_EQ(ours.sizes(), theirs.sizes());
  EXPECT_LT((ours - theirs).abs().max().item<double>(), 1e-4)
      << "of at most " << theirs.abs().max().item<double>();
  EXPECT_GT(theirs.std().item<double>(), 0.1);
}

class LanguageGolden : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Transformers, LanguageGolden, ::testing::Values("llama", "qwen2"));
TEST_P(LanguageGolden, LogitsAreThoseOfTransformers) {
  auto model = testing::foreign_model(GetParam()).language;
  at::NoGradGuard no_grad;
  expect_near(model(testing::formula_tokens({2, 17}, model->config().vocab_size)), golden(GetParam()));
}

class SwinGolden : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Transformers, SwinGolden, ::testing::Values("swin_tiny", "swin_padded"));
TEST_P(SwinGolden, FeaturesAreThoseOfTransformers) {
  auto model = testing::foreign_model(GetParam()).vision;
  const int64_t size = model->config().image_size;
  at::NoGradGuard no_grad;
  expect_near(model->features(testing::formula_image({1, 3, size, size})), golden(GetParam()));
}

void expect_timm(const std::string& name, const SwinConfig& config) {
  const TemporaryFolder folder;
  const std::string path = folder / "weights.safetensors";
  save_tensors(path, testing::foreign_tensors(kGoldens + name + ".weights.json"));
  Swin model(config);
  const auto files = WeightFiles::open(path);
  load_weights(*model, swin_weight_map_for(config, files), files, swin_ignores);
  at::NoGradGuard no_grad;
  expect_near(model->features(testing::formula_image({1, 3, config.image_size, config.image_size})),
              golden(name));
}

TEST(TimmGolden, TinyFeatures) {
  expect_timm("timm_tiny", swin_preset(SwinPreset::kTiny));
}

TEST(TimmGolden, SmallFeatures) {
  SwinConfig config;
  config.image_size = 64;
  config.dim = 16;
  config.depths = {2, 2};
  config.heads = {2, 4};
  config.window = 4;
  expect_timm("timm_small", config);
}

TEST(LanguageGoldenTypes, BFloat16StaysNear) {
  auto model = testing::foreign_model("llama", {.dtype = at::kBFloat16}).language;
  at::NoGradGuard no_grad;
  const auto logits = model(testing::formula_tokens({2, 17}, model->config().vocab_size));
  EXPECT_EQ(logits.scalar_type(), at::kBFloat16);
  EXPECT_LT(testing::relative_error(logits, golden("llama")), 0.05);
}

}  // namespace
}  // namespace fathom::golden_test
