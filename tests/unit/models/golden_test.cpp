// What transformers and timm compute with the same weights: tests/golden/models_golden.py.
#include <gmock/gmock.h>

#include "model_fixture.h"
#include "models/model_folder.h"
#include "models/swin/hf_map.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

const std::string kGoldens = FATHOM_GOLDENS "/models/";

at::Tensor golden(const std::string& name) {
  return load_tensors(kGoldens + "outputs.safetensors").at(name);
}

/// The tensors that the foreign library saves in this case, by its own names.
TensorMap foreign_tensors(const std::string& name) {
  TensorMap tensors;
  const Json names = read_json_file(kGoldens + name + ".weights.json");
  for (const auto& [tensor, shape] : names.as_object()) {
    std::vector<int64_t> sizes;
    for (const auto& size : shape.as_array()) sizes.push_back(size.as_int());
    tensors[tensor] = testing::formula_weight(tensor, sizes);
  }
  return tensors;
}

/// A folder as the foreign library leaves it.
LoadedModel load_case(const std::string& name, const LoadOptions& options = {}) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "model");
  fs::copy_file(kGoldens + name + ".config.json", folder / "model/config.json");
  save_tensors(folder / "model/model.safetensors", foreign_tensors(name), {{"format", "pt"}});
  return load_model_folder(folder / "model", options);
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
  auto model = load_case(GetParam()).language;
  at::NoGradGuard no_grad;
  expect_near(model(testing::formula_tokens({2, 17}, model->config().vocab_size)), golden(GetParam()));
}

class SwinGolden : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Transformers, SwinGolden, ::testing::Values("swin_tiny", "swin_padded"));
TEST_P(SwinGolden, FeaturesAreThoseOfTransformers) {
  auto model = load_case(GetParam()).vision;
  const int64_t size = model->config().image_size;
  at::NoGradGuard no_grad;
  expect_near(model->features(testing::formula_image({1, 3, size, size})), golden(GetParam()));
}

void expect_timm(const std::string& name, const SwinConfig& config) {
  const TemporaryFolder folder;
  const std::string path = folder / "weights.safetensors";
  save_tensors(path, foreign_tensors(name));
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
  auto model = load_case("llama", {.dtype = at::kBFloat16}).language;
  at::NoGradGuard no_grad;
  const auto logits = model(testing::formula_tokens({2, 17}, model->config().vocab_size));
  EXPECT_EQ(logits.scalar_type(), at::kBFloat16);
  EXPECT_LT(testing::relative_error(logits, golden("llama")), 0.05);
}

}  // namespace
}  // namespace fathom
