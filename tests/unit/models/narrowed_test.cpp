// A narrowed model has the names of the whole one.
#include "models/narrowed.h"

#include "model_fixture.h"

namespace fathom::narrowed_test {
namespace {

using namespace testing;

template <typename Model, typename Config>
void expect_same_names(const Config& config) {
  const Model whole(config), narrow(narrowed(config));
  EXPECT_EQ(whole->named_parameters().keys(), narrow->named_parameters().keys());
  for (const auto& item : narrow->named_parameters()) {
    EXPECT_EQ(item.value().dim(), whole->named_parameters()[item.key()].dim()) << item.key();
    EXPECT_LE(item.value().numel(), 64) << item.key();
  }
}

TEST(Narrowed, EncodersKeepTheirNames) {
  LanguageModelConfig text = small_language();
  expect_same_names<LanguageModel>(text);
  text.qkv_bias = true;
  text.tied_head = false;
  expect_same_names<LanguageModel>(text);
  SwinConfig vision = small_swin();
  expect_same_names<Swin>(vision);
  vision.qkv_bias = false;
  expect_same_names<Swin>(vision);
  vision.local_mixing = vision.mlp_mixing = 3;
  vision.convolution_stem = true;
  expect_same_names<Swin>(vision);
  AudioEncoderConfig audio{.bands = 8, .dim = 16, .layers = 2, .heads = 2, .max_frames = 20};
  expect_same_names<AudioEncoder>(audio);
  audio.front_end = AudioFrontEnd::kSubBands;
  expect_same_names<AudioEncoder>(audio);
}

TEST(Narrowed, DualTowersKeepTheirNames) {
  DualTowerConfig config = small_dual_tower();
  config.audio = {.bands = 8, .dim = 16, .layers = 1, .heads = 2, .max_frames = 20};
  expect_same_names<DualTower>(config);
  config.audio_tower = config.centred = true;
  config.adapters = 3;
  for (const RegionScore region : {RegionScore::kAttention, RegionScore::kLate}) {
    config.region = region;
    expect_same_names<DualTower>(config);
  }
}

TEST(Narrowed, ModelsThatAnswerKeepTheirNames) {
  FusionConfig config{.vision = small_swin(), .text = small_language()};
  config.early_layers = config.late_layers = 1;
  config.answers = {"yes", "no"};
  for (const FusionKind kind : {FusionKind::kProgressive, FusionKind::kConcatPooled,
                                FusionKind::kConcatTokens, FusionKind::kQuestionOnly}) {
    config.fusion = kind;
    config.captions = config.progressive();
    expect_same_names<Fusion>(config);
  }
  config.answer = AnswerKind::kGenerated;
  expect_same_names<Fusion>(config);
  config.fusion = FusionKind::kProgressive;
  config.captions = true;
  config.adapter_dim = 0;
  expect_same_names<Fusion>(config);
  config.region_positions = PlaceCode::kSinusoidal;
  expect_same_names<Fusion>(config);
}

TEST(Narrowed, ClassifiersKeepTheirNames) {
  ClassifierConfig config{.vision = small_swin(), .text = small_language()};
  config.audio = {.bands = 8, .dim = 16, .layers = 1, .heads = 2, .max_frames = 20};
  config.classes = {"a", "b", "c"};
  for (const EncoderKind kind : {EncoderKind::kImage, EncoderKind::kText, EncoderKind::kAudio}) {
    config.encoder = kind;
    expect_same_names<Classifier>(config);
  }
}

TEST(Narrowed, AFoldersNamesAreThoseOfItsModel) {
  const TemporaryFolder folder;
  DualTower tower(small_dual_tower());
  fill_by_formula(tower);
  save_model_folder(folder / "model", tower);
  std::filesystem::remove(folder / "model/fathom.safetensors");  // no weights are needed
  EXPECT_EQ(model_parameter_names(folder / "model"), tower->named_parameters().keys());
  EXPECT_EQ(model_parameter_names(folder / "model/vision"), tower->vision()->named_parameters().keys());
  EXPECT_EQ(model_parameter_names(folder / "model/text"), tower->text()->named_parameters().keys());
}

}  // namespace
}  // namespace fathom::narrowed_test
