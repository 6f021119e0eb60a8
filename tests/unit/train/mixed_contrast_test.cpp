// A contrastive task that mixes pictures and softens targets: what it learns from, and in any micro-batches.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <vector>

#include "contrastive_fixture.h"

namespace fathom::testing::mixed_contrast_test {
namespace {

constexpr int64_t kMixedVocabulary = 50;

/// Twelve pairs with two views and two captions each.
Batch two_of_each() {
  Batch batch = make_batch();
  batch.image_BCHW = torch::randn({24, 3, 16, 16}, at::kDouble);
  batch.tokens_BT = torch::randint(0, kMixedVocabulary, {24, 10}, at::kLong);
  batch.length_B = torch::randint(1, 11, {24}, at::kLong);
  return batch;
}

ContrastiveTask mixing_task(const ContrastiveConfig& config, RegionScore region = RegionScore::kNone) {
  return ContrastiveTask({.model = make_model(config, {.region = region}),
                          .config = config,
                          .captions_per_image = 2,
                          .views_per_image = 2,
                          .seed = 6});
}

StepResult mixed_step(const ContrastiveConfig& config, int64_t size = 12,
                      RegionScore region = RegionScore::kNone) {
  ContrastiveTask task = mixing_task(config, region);
  return run_step(task, split(two_of_each(), size));
}

const ContrastiveConfig kMixing{.mixup = 1, .cutmix_share = 0.5, .mix_share = 0.8};

TEST(MixedContrast, LearnsFromMixedPicturesWithTargetsInShares) {
  const torch::NoGradGuard no_grad;
  const MicroBatch part = split(two_of_each(), 12).front();
  const MixedPictures mixed = PictureMixing({.alpha = 1, .cutmix_share = 0.5, .mix_share = 0.8})
                                  .mix(part.batch.image_BCHW, part.forward.key_B);
  EXPECT_GT(mixed.share_B.lt(1).sum().item<int64_t>(), 4);
  DualTower model = make_model({});
  ForwardContext forward = part.forward;
  forward.key_B = keys_of_rows(forward.key_B, 2);
  ContrastiveRows rows{.owner_B = part.batch.index_B,
                       .caption_M = caption_ids(part.batch.tokens_BT, part.batch.length_B)};
  rows.modalities = {{.modality = Modality::kImage, .side = model->encode_image(mixed.image_NCHW, forward)},
                     {.modality = Modality::kText,
                      .side = model->encode_text(part.batch.tokens_BT, part.batch.length_B, forward)}};
  rows.mixed = note_mixture(mixed.share_B.to(at::kDouble), mixed.partner_B, rows.owner_B, rows.caption_M);
  const auto collective = make_solo_collective();
  const StepContext step{.collective = *collective};
  const double expected =
      ContrastiveObjective({.model = model, .config = kMixing}).loss(rows, step).item<double>();
  ContrastiveTask task = mixing_task(kMixing), plain = mixing_task({});
  EXPECT_NEAR(task.loss(part, step).item<double>(), expected, 1e-9);
  EXPECT_GT(std::abs(plain.loss(part, step).item<double>() - expected), 1e-3);
}

TEST(MixedContrast, NamesTheWordsOfBothSamplesInTheirShares) {
  const torch::NoGradGuard no_grad;
  const MicroBatch part = split(two_of_each(), 12).front();
  ContrastiveConfig config = kMixing;
  ContrastiveTask without = mixing_task(config);
  config.word_weight = 0.7;
  ContrastiveTask with = mixing_task(config);
  const auto collective = make_solo_collective();
  const StepContext step{.collective = *collective};
  const double added = with.loss(part, step).item<double>() - without.loss(part, step).item<double>();

  const MixedPictures mixed = PictureMixing({.alpha = 1, .cutmix_share = 0.5, .mix_share = 0.8})
                                  .mix(part.batch.image_BCHW, part.forward.key_B);
  ForwardContext forward = part.forward;
  forward.key_B = keys_of_rows(forward.key_B, 2);
  const auto head = named(with);
  const at::Tensor logits_VW = at::addmm(
      head.at("word_head.bias"), make_model({})->vision()->features(mixed.image_NCHW, forward).mean(1),
      head.at("word_head.weight").t());
  WordTargets targets({.vocab_size = kMixedVocabulary, .marks = {}});
  targets.count({&part, 1}, *collective);
  const at::Tensor word_BW = targets.words(part.batch);
  double expected = 0;
  for (int64_t v = 0; v < 24; ++v) {
    const double share = mixed.share_B[v / 2].item<double>();
    const auto loss_of = [&](int64_t sample) {
      return targets.loss(logits_VW.narrow(0, v, 1), word_BW.narrow(0, sample, 1)).item<double>();
    };
    expected += share * loss_of(v / 2) + (1 - share) * loss_of((v / 2) ^ 1);
  }
  EXPECT_NEAR(added, 0.7 * expected / 24, 1e-6);
}

TEST(MixedContrast, AccumulationEqualsTheWholeBatch) {
  ContrastiveConfig config = kMixing;
  config.soft_targets = 0.3;
  config.view_weight = 0.4;
  config.word_weight = 0.5;
  config.localization = 0.5;
  for (const RegionScore region : {RegionScore::kNone, RegionScore::kLate}) {
    const StepResult whole = mixed_step(config, 12, region);
    for (const int64_t size : {2, 4, 8}) {  // even, so that pairs are the same
      const StepResult parts = mixed_step(config, size, region);
      expect_equal(parts, whole, 1e-9);
      EXPECT_EQ(parts.last_backward_calls, 1);
    }
  }
}

TEST(MixedContrast, OddMicroBatchesHaveFewerPairsAndLearn) {
  const StepResult odd = mixed_step(kMixing, 5);
  EXPECT_TRUE(std::isfinite(odd.loss));
  EXPECT_GT(odd.gradients.at("vision.patch_embed.weight").abs().max().item<double>(), 1e-6);
}

TEST(MixedContrast, EachSwitchChangesWhatBothTowersLearn) {
  const StepResult plain = mixed_step({});
  for (const ContrastiveConfig& config :
       std::vector<ContrastiveConfig>{{.mixup = 1}, {.mixup = 1, .cutmix_share = 1}, {.soft_targets = 0.3}}) {
    const StepResult with = mixed_step(config);
    for (const char* name : {"vision.patch_embed.weight", "text.embedding"})
      EXPECT_GT((plain.gradients.at(name) - with.gradients.at(name)).abs().max().item<double>(), 1e-7)
          << name;
  }
}

TEST(MixedContrast, OffIsTheSameToTheBit) {
  const StepResult plain = mixed_step({}),
                   off = mixed_step({.cutmix_share = 0.5, .mix_share = 0.5, .soft_temperature = 2});
  EXPECT_EQ(off.loss, plain.loss);
  for (const auto& [name, gradient] : plain.gradients)
    EXPECT_TRUE(at::equal(off.gradients.at(name), gradient)) << name;
  EXPECT_NEAR(mixed_step({.mixup = 1, .mix_share = 0}).loss, plain.loss, 1e-9) << "no sample is chosen";
}

TEST(MixedContrast, IsOfTrainingAlone) {
  const torch::NoGradGuard no_grad;
  ContrastiveTask mixed = mixing_task(kMixing), plain = mixing_task({});
  const auto collective = make_solo_collective();
  const StepContext step{.collective = *collective};
  EXPECT_EQ(mixed.loss({two_of_each(), {}}, step).item<double>(),
            plain.loss({two_of_each(), {}}, step).item<double>());
}

TEST(MixedContrast, LaunchesAlike) {
  EXPECT_TRUE(mixing_task(kMixing).launches_alike());
}

}  // namespace
}  // namespace fathom::testing::mixed_contrast_test
