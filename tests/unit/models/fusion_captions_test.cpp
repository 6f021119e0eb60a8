// Fusion models that read captions: what comes of them, and that every layer and adapter takes part.
#include <gmock/gmock.h>

#include "fusion_fixture.h"
#include "models/lora.h"
#include "models/model_folder.h"

namespace fathom::fusion_captions_test {
namespace {

using namespace testing;

TEST(Captions, AreReadAndTheirPaddingIsNot) {
  auto model = make_fusion(reading_fusion());
  const at::NoGradGuard no_grad;
  const auto answers = [&](const PromptedTokens& words) {
    return model->hidden({.image = model->perceive(picture()).image, .caption = model->read(words)},
                         question());
  };
  const auto before = answers(caption());
  EXPECT_GT(difference(before, answers(caption(4))), 1e-6);
  auto padded = caption();
  padded.tokens_BT[1].slice(0, 4).fill_(1);
  EXPECT_LT(difference(before, answers(padded)), 1e-12);
}

TEST(Captions, AMaskedModalityIsAMissingOne) {
  auto model = make_fusion(reading_fusion());
  const at::NoGradGuard no_grad;
  Percept both{.image = model->perceive(picture()).image, .caption = model->read(caption())};
  const auto regions = both.image.token_BSD.size(1);
  Percept masked = both;
  masked.image.mask_BS = at::zeros({2, regions}, at::kBool);
  EXPECT_LT(difference(model->hidden(masked, question()),
                       model->hidden({.image = {}, .caption = both.caption}, question())),
            1e-12);
  masked = both;
  masked.caption.mask_BS = at::zeros_like(both.caption.mask_BS);
  const auto by_image = model->hidden({.image = both.image}, question());
  EXPECT_LT(difference(model->hidden(masked, question()), by_image), 1e-12);
  EXPECT_GT(difference(model->hidden(both, question()), by_image), 1e-6);
}

TEST(Captions, CountTheirParameters) {
  const FusionConfig config = reading_fusion(AnswerKind::kClasses);
  int64_t count = 0;
  for (const auto& parameter : Fusion(config)->parameters()) count += parameter.numel();
  EXPECT_EQ(parameter_count(config), count);
}

/// The reading model with linear layers in the place of its modal adapters.
FusionConfig projecting_fusion(AnswerKind answer = AnswerKind::kGenerated) {
  FusionConfig config = reading_fusion(answer);
  config.adapter_dim = 0;
  return config;
}

TEST(PlainProjection, IsOneLinearLayerForEachModality) {
  const FusionConfig config = projecting_fusion();
  auto model = make_fusion(config);
  std::vector<std::string> names;
  int64_t count = 0;
  for (const auto& item : model->named_parameters()) {
    count += item.value().numel();
    if (item.key().find("adapter.") != std::string::npos) names.push_back(item.key());
  }
  EXPECT_EQ(parameter_count(config), count);
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("adapter.projection.weight", "adapter.projection.bias",
                                                     "caption_adapter.projection.weight",
                                                     "caption_adapter.projection.bias"));
  const at::NoGradGuard no_grad;
  const auto weights = model->named_parameters();
  const at::Tensor region_BPD = model->vision()->features(picture());
  const at::Tensor expected =
      at::linear(region_BPD, weights["adapter.projection.weight"], weights["adapter.projection.bias"]) +
      weights["region_position"];
  EXPECT_LT(difference(model->perceive(picture()).image.token_BSD, expected), 1e-12);
  const double in = static_cast<double>(config.vision.output_dim()),
               out = static_cast<double>(config.text.dim);
  FusionConfig bottleneck = config;
  bottleneck.adapter_dim = 10;
  const auto saved =
      static_cast<double>(forward_flops(bottleneck, 1, kTokens) - forward_flops(config, 1, kTokens));
  EXPECT_EQ(saved, 2 * static_cast<double>(config.vision.num_regions()) * (10 * (in + out) - in * out) +
                       2 * static_cast<double>(kTokens) * (10 * (out + out) - out * out));
}

TEST(PlainProjection, ComesBackFromItsFolder) {
  const TemporaryFolder folder;
  auto model = make_fusion(projecting_fusion());
  model->to(at::kFloat);
  save_model_folder(folder / "model", model);
  const auto loaded = load_model_folder(folder / "model");
  EXPECT_EQ(loaded.fusion->config().adapter_dim, 0);
  for (const auto& item : model->named_parameters())
    EXPECT_TRUE(at::equal(item.value(), loaded.fusion->named_parameters()[item.key()])) << item.key();
}

TEST(Fusion, EveryAdaptedLayerDropsOutInTraining) {
  const FusionConfig config = reading_fusion(AnswerKind::kClasses);
  auto plain = make_fusion(config);
  for (const auto& [layer, unused] : linear_layers(*plain)) {
    auto model = make_fusion(config);
    add_adapters(*model, {.rank = 2, .alpha = 4, .dropout = 0.5, .patterns = {layer}}, 7);
    const at::NoGradGuard no_grad;
    for (auto& item : model->named_parameters())
      if (item.key().find(".lora_") != std::string::npos)
        item.value().copy_(formula_weight(item.key() + ".matrix", item.value().sizes()));
    const auto logits = [&](const ForwardContext& context) {
      return model->class_logits(
          {.image = model->perceive(picture(), context).image, .caption = model->read(caption(), context)},
          question(), context);
    };
    EXPECT_GT(difference(logits({}), logits({.training = true, .key_B = sample_keys(2)})), 1e-9) << layer;
  }
}

TEST(Fusion, GradientsReachEveryParameter) {
  auto model = make_fusion(reading_fusion(AnswerKind::kClasses));
  auto text = question();
  text.prompt_length_B = at::Tensor();
  model->class_logits({.image = model->perceive(picture()).image, .caption = model->read(caption())}, text)
      .pow(2)
      .sum()
      .backward();
  for (const auto& item : model->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_GT(item.value().grad().abs().max().item<double>(), 0) << item.key();
  }
}

}  // namespace
}  // namespace fathom::fusion_captions_test
