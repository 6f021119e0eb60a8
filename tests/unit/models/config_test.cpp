// Shapes are refused before anything is allocated; counts follow from the shape alone.
#include <gmock/gmock.h>

#include "model_fixture.h"

namespace fathom::config_test {
namespace {

using namespace testing;
using ::testing::HasSubstr;

template <typename Model>
int64_t count_parameters(const Model& model) {
  int64_t count = 0;
  for (const auto& parameter : model->parameters()) count += parameter.numel();
  return count;
}

TEST(Counts, AreThoseOfTheModels) {
  auto config = small_language();
  EXPECT_EQ(parameter_count(config), count_parameters(LanguageModel(config)));
  config.qkv_bias = true;
  config.tied_head = false;
  config.head_dim = 10;
  EXPECT_EQ(parameter_count(config), count_parameters(LanguageModel(config)));
  SwinConfig swin = small_swin();
  EXPECT_EQ(parameter_count(swin), count_parameters(Swin(swin)));
  swin.local_mixing = 5;
  EXPECT_EQ(parameter_count(swin), count_parameters(Swin(swin)));
  swin.mlp_mixing = 3;
  EXPECT_EQ(parameter_count(swin), count_parameters(Swin(swin)));
  swin.convolution_stem = true;
  EXPECT_EQ(parameter_count(swin), count_parameters(Swin(swin)));
  for (const RegionScore region : {RegionScore::kNone, RegionScore::kAttention, RegionScore::kLate})
    for (const int64_t adapters : {0, 3}) {
      DualTowerConfig tower = small_dual_tower();
      tower.region = region;
      tower.adapters = adapters;
      tower.centred = adapters > 0;
      EXPECT_EQ(parameter_count(tower), count_parameters(DualTower(tower)));
    }
}

TEST(Counts, AreThePublishedOnesOfSwinAndLlama) {
  // Liu et al. 2021, table 1, without the classifier of 1,000 classes: 29 M, 50 M, 88 M; 4.5 G, 8.7 G, 15.4 G
  // multiply-adds at 224 pixels.
  EXPECT_EQ(parameter_count(swin_preset(SwinPreset::kTiny)), 27519354);
  EXPECT_EQ(parameter_count(swin_preset(SwinPreset::kSmall)), 48837258);
  EXPECT_EQ(parameter_count(swin_preset(SwinPreset::kBase)), 86743224);
  EXPECT_NEAR(forward_flops(swin_preset(SwinPreset::kTiny), 1) / 2e9, 4.5, 0.1);
  EXPECT_NEAR(forward_flops(swin_preset(SwinPreset::kSmall), 1) / 2e9, 8.7, 0.1);
  EXPECT_NEAR(forward_flops(swin_preset(SwinPreset::kBase), 1) / 2e9, 15.4, 0.2);
  const LanguageModelConfig llama = {
      .vocab_size = 32000, .dim = 4096, .layers = 32, .heads = 32, .mlp_dim = 11008, .tied_head = false};
  EXPECT_EQ(parameter_count(llama), 6738415616);
  EXPECT_NEAR(static_cast<double>(forward_flops(llama, 1, 1)) / (2.0 * 6738415616), 1.0, 0.03);
}

TEST(Validation, NamesWhatDoesNotFit) {
  auto language = small_language();
  language.heads = 5;
  EXPECT_THAT(error_of([&] { LanguageModel model(language); }, ErrorKind::kConfig), HasSubstr("dim = 24"));
  language = small_language();
  language.kv_heads = 3;
  EXPECT_THAT(error_of([&] { LanguageModel model(language); }, ErrorKind::kConfig),
              HasSubstr("kv_heads = 3"));
  language = small_language();
  language.heads = 8;
  EXPECT_THAT(error_of([&] { LanguageModel model(language); }, ErrorKind::kConfig), HasSubstr("width 3"));
  language.vocab_size = 0;
  language.heads = 4;
  EXPECT_THAT(error_of([&] { LanguageModel model(language); }, ErrorKind::kConfig), HasSubstr("vocab_size"));
  auto swin = small_swin();
  swin.image_size = 30;
  EXPECT_THAT(error_of([&] { Swin model(swin); }, ErrorKind::kConfig), HasSubstr("image_size = 30"));
  swin = small_swin();
  swin.heads = {2};
  EXPECT_THAT(error_of([&] { Swin model(swin); }, ErrorKind::kConfig), HasSubstr("one value a stage"));
  swin.heads = {3, 4};
  EXPECT_THAT(error_of([&] { Swin model(swin); }, ErrorKind::kConfig), HasSubstr("stage 0 has width 8"));
  swin = small_swin();
  swin.mlp_mixing = 2;
  EXPECT_THAT(error_of([&] { Swin model(swin); }, ErrorKind::kConfig), HasSubstr("mlp_mixing = 2"));
  swin.mlp_mixing = 3;
  swin.gate.kind = GateKind::kToken;
  EXPECT_THAT(error_of([&] { Swin model(swin); }, ErrorKind::kConfig), HasSubstr("gate.part"));
  swin.gate.part = GatedPart::kAttention;
  EXPECT_EQ(parameter_count(swin), count_parameters(Swin(swin)));
  swin = small_swin();
  swin.patch_size = 1;
  swin.convolution_stem = true;
  EXPECT_THAT(error_of([&] { Swin model(swin); }, ErrorKind::kConfig), HasSubstr("patch_size = 1"));
  swin = small_swin();
  for (const double bad : {0.0, -1.0, std::nan("")}) {
    swin.preprocessing.deviation[1] = bad;
    EXPECT_THAT(error_of([&] { Swin model(swin); }, ErrorKind::kConfig), HasSubstr("expected more than 0"));
  }
}

TEST(Presets, AreTakenFromTheRecipeAndStillGiveWay) {
  const auto config = read_config<SwinConfig>(parse_toml("dim = 48\npreset = \"small\"\n", "recipe"));
  EXPECT_EQ(config.dim, 48);
  EXPECT_EQ(config.depths, (std::vector<int64_t>{2, 2, 18, 2}));
  const auto again = read_config<SwinConfig>({.values = config_to_json(config), .source = "record"});
  EXPECT_EQ(again.dim, 48);
  EXPECT_EQ(config_to_json(again), config_to_json(config));
}

}  // namespace
}  // namespace fathom::config_test
