// The audio encoder and the classifier: padding changes nothing, sub-bands are a switch, folders give them
// back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "model_fixture.h"
#include "models/audio/model.h"
#include "models/classifier/model.h"
#include "models/model_folder.h"
#include "nn/init.h"
#include "nn/spectrogram_stem.h"

namespace fathom::audio_test {
namespace {

using namespace testing;
using ::testing::HasSubstr;

AudioEncoderConfig small_audio(AudioFrontEnd front_end = AudioFrontEnd::kMel) {
  return {.front_end = front_end,
          .bands = 12,
          .sub_bands = 3,
          .dim = 16,
          .layers = 2,
          .heads = 2,
          .mlp_dim = 24,
          .max_frames = 40};
}

AudioEncoder make_audio(const AudioEncoderConfig& config) {
  AudioEncoder model(config);
  init_parameters(*model, 3);
  return model;
}

TEST(AudioEncoder, CountsItsParameters) {
  for (const auto front_end : {AudioFrontEnd::kMel, AudioFrontEnd::kSubBands}) {
    const AudioEncoder model(small_audio(front_end));
    int64_t count = 0;
    for (const auto& parameter : model->parameters()) count += parameter.numel();
    EXPECT_EQ(parameter_count(small_audio(front_end)), count);
  }
}

TEST(AudioEncoder, PaddingChangesNothing) {
  for (const auto front_end : {AudioFrontEnd::kMel, AudioFrontEnd::kSubBands}) {
    AudioEncoder model = make_audio(small_audio(front_end));
    const at::NoGradGuard no_grad;
    torch::manual_seed(1);
    const auto mel = at::randn({2, 12, 37});
    const auto frames = at::tensor({37, 22}, at::kLong);
    const auto both = model->pooled(mel, frames);
    EXPECT_LT(relative_error(both[0], model->pooled(mel.slice(0, 0, 1), {})[0]), 1e-5);
    EXPECT_LT(relative_error(both[1], model->pooled(mel.slice(0, 1).slice(2, 0, 22), {})[0]), 1e-5);
    auto spoiled = mel.clone();
    spoiled[1].slice(1, 22).fill_(7.0);
    EXPECT_LT(relative_error(model->pooled(spoiled, frames), both), 1e-6) << "whatever stands behind the end";
    spoiled[1].slice(1, 20, 22).fill_(7.0);
    EXPECT_GT(relative_error(model->pooled(spoiled, frames), both), 1e-3);
  }
}

TEST(AudioEncoder, SubBandsHaveEmbeddingsOfTheirOwn) {
  AudioEncoder model = make_audio(small_audio(AudioFrontEnd::kSubBands));
  const at::NoGradGuard no_grad;
  torch::manual_seed(1);
  const auto mel = at::randn({1, 12, 20});
  const auto found = model->features(mel, {});
  EXPECT_EQ(found.state_BTD.sizes(), at::IntArrayRef({1, 30, 16}));
  ASSERT_TRUE(model->named_parameters().contains("sub_band"));
  const auto before = model->pooled(mel, {});
  model->named_parameters()["sub_band"][1] += 0.5;
  EXPECT_GT(relative_error(model->pooled(mel, {}), before), 1e-3);
  // The stem of one sub-band sees no other.
  SpectrogramStem stem(SpectrogramStemOptions{.channels = 12, .dim = 4, .groups = 3});
  init_parameters(*stem, 5);
  const auto y = stem->forward(mel, {});
  auto changed = mel.clone();
  changed.slice(1, 4, 8) += 1.0;
  const auto z = stem->forward(changed, {});
  EXPECT_TRUE(at::equal(y.select(1, 0), z.select(1, 0)));
  EXPECT_FALSE(at::allclose(y.select(1, 1), z.select(1, 1)));
  EXPECT_TRUE(at::equal(y.select(1, 2), z.select(1, 2)));
}

TEST(AudioEncoder, HasRightGradients) {
  AudioEncoderConfig config = small_audio(AudioFrontEnd::kSubBands);
  config.layers = 1;
  AudioEncoder model = make_audio(config);
  model->to(at::kDouble);
  const auto frames = at::tensor({7, 5}, at::kLong);
  expect_gradients([&](const std::vector<at::Tensor>& x) { return model->pooled(x[0], frames); },
                   {at::randn({2, 12, 7}, at::kDouble)});
}

TEST(AudioEncoder, RefusesOtherShapes) {
  AudioEncoder model = make_audio(small_audio());
  EXPECT_THAT(error_of(
                  [&] {
                    model->pooled(at::zeros({1, 13, 20}), {});
                  },
                  ErrorKind::kRequest),
              HasSubstr("[B, 12,"));
  EXPECT_THAT(error_of(
                  [&] {
                    model->pooled(at::zeros({1, 12, 41}), {});
                  },
                  ErrorKind::kRequest),
              HasSubstr("at most 40 frames"));
  auto config = small_audio(AudioFrontEnd::kSubBands);
  config.sub_bands = 5;
  EXPECT_THAT(error_of([&] { AudioEncoder{config}; }, ErrorKind::kConfig),
              HasSubstr("bands = 12 cannot be split into sub_bands = 5"));
}

TEST(AudioEncoder, DropsByKeyInTrainingOnly) {
  auto config = small_audio();
  config.dropout = 0.3;
  AudioEncoder model = make_audio(config);
  const auto mel = at::randn({2, 12, 20});
  const auto plain = model->pooled(mel, {});
  const ForwardContext context{.training = true, .key_B = sample_keys(2)};
  EXPECT_FALSE(at::allclose(model->pooled(mel, {}, context), plain));
  EXPECT_TRUE(at::equal(model->pooled(mel, {}, context), model->pooled(mel, {}, context)));
}

TEST(AudioFolder, GivesAnEncoderBack) {
  const TemporaryFolder folder;
  AudioEncoder model = make_audio(small_audio(AudioFrontEnd::kSubBands));
  save_model_folder(folder / "model", model);
  const auto loaded = load_model_folder(folder / "model");
  EXPECT_EQ(loaded.kind, ModelKind::kAudio);
  EXPECT_EQ(config_to_json(loaded.audio->config()), config_to_json(model->config()));
  expect_same_parameters(model, loaded.audio);
}

ClassifierConfig small_classifier(EncoderKind encoder) {
  return {.encoder = encoder,
          .audio = small_audio(),
          .vision = small_swin(),
          .text = small_language(),
          .classes = {"cat", "dog", "rain"}};
}

TEST(ClassifierFolder, GivesEveryKindBackAndItsEncoderAlone) {
  for (const auto encoder : {EncoderKind::kAudio, EncoderKind::kImage, EncoderKind::kText}) {
    const TemporaryFolder folder;
    Classifier model(small_classifier(encoder));
    init_parameters(*model, 2);
    int64_t count = 0;
    for (const auto& parameter : model->parameters()) count += parameter.numel();
    EXPECT_EQ(parameter_count(model->config()), count);
    save_model_folder(folder / "model", model);
    const auto loaded = load_model_folder(folder / "model");
    EXPECT_EQ(loaded.kind, ModelKind::kClassifier);
    EXPECT_EQ(loaded.classifier->config().classes, model->config().classes);
    expect_same_parameters(model, loaded.classifier);
    if (encoder == EncoderKind::kAudio)
      expect_same_parameters(model->audio(), load_model_folder(folder / "model/audio").audio);
    if (encoder == EncoderKind::kImage)
      expect_same_parameters(model->vision(), load_model_folder(folder / "model/vision").vision);
  }
}

TEST(ClassifierFolder, RefusesWhatDoesNotFit) {
  const TemporaryFolder folder;
  Classifier model(small_classifier(EncoderKind::kAudio));
  init_parameters(*model, 2);
  save_model_folder(folder / "model", model);
  Json record = read_json_file(folder / "model/fathom.json");
  record["config"]["classes"] = Json(Json::Array{"cat"});
  write_json_file(folder / "model/fathom.json", record);
  EXPECT_THAT(error_of([&] { load_model_folder(folder / "model"); }, ErrorKind::kCheckpoint),
              HasSubstr("config.classes: fewer than two"));
  record["config"]["classes"] = Json(Json::Array{"cat", "dog"});
  write_json_file(folder / "model/fathom.json", record);
  EXPECT_THAT(error_of([&] { load_model_folder(folder / "model"); }, ErrorKind::kCheckpoint),
              HasSubstr("head"));
  EXPECT_THAT(error_of([&] { Classifier{ClassifierConfig{.audio = small_audio()}}; }, ErrorKind::kConfig),
              HasSubstr("at least two classes"));
}

}  // namespace
}  // namespace fathom::audio_test
