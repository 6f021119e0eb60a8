// Contrast among pictures, texts and sounds, any of which a sample may lack.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "nn/init.h"
#include "step_fixture.h"
#include "tiny_encoders.h"
#include "train/task/contrastive.h"

namespace fathom::sound_contrast_test {
namespace {

using testing::split;
using testing::StepResult;

constexpr int64_t kSamples = 12;

DualTower make_model(bool audio_tower, RegionScore region = RegionScore::kNone, bool logit_bias = false) {
  DualTowerConfig config;
  config.vision = testing::tiny_vision();
  config.text = testing::tiny_text();
  config.audio_tower = audio_tower;
  config.audio = {.bands = 10, .dim = 16, .layers = 2, .heads = 2, .max_frames = 20, .dropout = 0.1};
  config.embed_dim = 12;
  config.region = region;
  config.logit_bias = logit_bias;
  DualTower model(config);
  init_parameters(*model, 1);
  model->to(at::kDouble);
  return model;
}

/// Which of twelve samples have a picture, a text, a sound: every combination of two at least.
struct Missing {
  std::vector<int> image, text, sound;
  at::Tensor mask(const std::vector<int>& has) const {
    return torch::tensor(std::vector<int64_t>(has.begin(), has.end()), at::kLong).to(at::kBool);
  }
};
const Missing kMixed{.image = {1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1},
                     .text = {1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1},
                     .sound = {1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0}};
const std::vector<int> kAll(kSamples, 1), kNone(kSamples, 0);

Batch make_batch(const Missing& missing) {
  torch::manual_seed(4);
  Batch batch;
  batch.index_B = torch::arange(kSamples);
  batch.image_BCHW = torch::randn({kSamples, 3, 16, 16}, at::kDouble);
  batch.tokens_BT = torch::randint(0, 50, {kSamples, 10}, at::kLong);
  batch.tokens_BT[1].copy_(batch.tokens_BT[8]);
  batch.length_B = torch::full({kSamples}, 10, at::kLong);
  batch.mel_BFS = torch::randn({kSamples, 10, 20}, at::kDouble);
  batch.frames_B = torch::tensor({20, 4, 11, 20, 9, 3, 20, 7, 16, 20, 20, 12}, at::kLong);
  const auto put = [&](const std::vector<int>& has, at::Tensor& has_B, std::vector<at::Tensor*> rows) {
    if (has == kAll) return;
    for (at::Tensor* tensor : rows) {
      if (has == kNone) {
        *tensor = at::Tensor();
        continue;
      }
      has_B = missing.mask(has);
      std::vector<int64_t> sizes(static_cast<size_t>(tensor->dim()), 1);
      sizes[0] = kSamples;
      tensor->masked_fill_(has_B.logical_not().view(sizes), 0);
    }
  };
  put(missing.image, batch.has_image_B, {&batch.image_BCHW});
  put(missing.text, batch.has_text_B, {&batch.tokens_BT, &batch.length_B});
  put(missing.sound, batch.has_sound_B, {&batch.mel_BFS, &batch.frames_B});
  return batch;
}

struct Case {
  const char* name;
  RegionScore region;
  ContrastiveConfig config;
};

ContrastiveTask task_of(const Case& wanted) {
  const bool sigmoid = wanted.config.loss == ContrastiveLoss::kSigmoid;
  return ContrastiveTask(
      {.model = make_model(true, wanted.region, sigmoid), .config = wanted.config, .missing = true});
}

StepResult step_of(const Case& wanted, const Batch& batch, int64_t micro_batch_size = kSamples) {
  ContrastiveTask task = task_of(wanted);
  return testing::run_step(task, split(batch, micro_batch_size));
}

class MissingModalities : public ::testing::TestWithParam<Case> {};

TEST_P(MissingModalities, AccumulationEqualsTheWholeBatch) {
  const StepResult whole = step_of(GetParam(), make_batch(kMixed));
  EXPECT_TRUE(std::isfinite(whole.loss));
  // Of one sample each, most micro-batches lack a modality altogether.
  for (const int64_t size : {1, 5})
    testing::expect_equal(step_of(GetParam(), make_batch(kMixed), size), whole, 1e-9);
  for (const auto& [name, gradient] : whole.gradients)
    EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << name;
}

TEST_P(MissingModalities, WhatStandsInPlaceOfTheMissingDoesNotMatter) {
  Batch batch = make_batch(kMixed);
  const at::Tensor absent_B = batch.has_image_B.logical_not();
  batch.image_BCHW.masked_fill_(absent_B.view({-1, 1, 1, 1}), 3.5);
  batch.mel_BFS.masked_fill_(batch.has_sound_B.logical_not().view({-1, 1, 1}), -2);
  batch.tokens_BT.masked_fill_(batch.has_text_B.logical_not().view({-1, 1}), 7);
  EXPECT_NEAR(step_of(GetParam(), batch).loss, step_of(GetParam(), make_batch(kMixed)).loss, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(
    All, MissingModalities,
    ::testing::Values(Case{"infonce", RegionScore::kNone, {.label_smoothing = 0.05}},
                      Case{"sigmoid", RegionScore::kNone, {.loss = ContrastiveLoss::kSigmoid}},
                      Case{"attention", RegionScore::kAttention, {}}, Case{"late", RegionScore::kLate, {}},
                      Case{"reversal", RegionScore::kNone, {.reversal = 0.5}},
                      Case{"consistency", RegionScore::kNone, {.consistency = 0.7}},
                      Case{"words", RegionScore::kNone, {.word_weight = 0.6}},
                      Case{"localization", RegionScore::kNone, {.localization = 0.6}}),
    [](const auto& info) { return std::string(info.param.name); });

/// The definition on the model's own embeddings, one pair after another.
double by_hand(const Missing& missing, const PairWeights& weights) {
  const torch::NoGradGuard no_grad;
  DualTower model = make_model(true);
  const Batch batch = make_batch(missing);
  const std::vector<int>* has[] = {&missing.image, &missing.text, &missing.sound};
  const at::Tensor rows[] = {model->embed_image(batch.image_BCHW),
                             model->embed_text(batch.tokens_BT, batch.length_B.clamp_min(1)),
                             model->embed_sound(batch.mel_BFS, batch.frames_B.clamp_min(1))};
  const double weight[3][3] = {{0, weights.image_text, weights.image_sound},
                               {weights.image_text, 0, weights.text_sound},
                               {weights.image_sound, weights.text_sound, 0}};
  const auto same_text = [](int64_t i, int64_t j) { return (i == 1 && j == 8) || (i == 8 && j == 1); };
  double sum = 0;
  for (int a = 0; a < 3; ++a) {
    for (int b = 0; b < 3; ++b) {
      if (a == b) continue;
      const at::Tensor z = at::mm(rows[a], rows[b].t()) * model->logit_scale();
      double nats = 0;
      int count = 0;
      for (int64_t i = 0; i < kSamples; ++i) {
        if (!(*has[a])[i] || !(*has[b])[i]) continue;
        const double right = z[i][i].item<double>();
        double others = 0;
        for (int64_t j = 0; j < kSamples; ++j)
          if (j != i && (*has[b])[j] && !((a == 1 || b == 1) && same_text(i, j)))
            others += std::exp(z[i][j].item<double>());
        nats -= right - std::log(std::exp(right) + others);
        ++count;
      }
      sum += count > 0 ? 0.5 * weight[a][b] * nats / count : 0;
    }
  }
  return sum / (weights.image_text + weights.image_sound + weights.text_sound);
}

double loss(const Missing& missing, const ContrastiveConfig& config, bool audio_tower = true) {
  ContrastiveTask task({.model = make_model(audio_tower), .config = config, .missing = audio_tower});
  const auto collective = make_solo_collective();
  return task.loss({make_batch(missing), {}}, {.collective = *collective}).item<double>();
}

TEST(SoundContrast, IsTheMeanOverKindsOfPairsThatExist) {
  const Missing complete{.image = kAll, .text = kAll, .sound = kAll};
  EXPECT_NEAR(loss(complete, {}), by_hand(complete, {}), 1e-6);  // the temperature is kept in float32
  EXPECT_NEAR(loss(kMixed, {}), by_hand(kMixed, {}), 1e-6);
  const PairWeights weights{.image_text = 2, .image_sound = 0, .text_sound = 0.5};
  EXPECT_NEAR(loss(kMixed, {.pairs = weights}), by_hand(kMixed, weights), 1e-6);
  EXPECT_GT(std::abs(by_hand(kMixed, weights) - by_hand(kMixed, {})), 1e-3);
}

TEST(SoundContrast, WithoutSoundsIsTheDualTower) {
  const Missing silent{.image = kAll, .text = kAll, .sound = kNone};
  EXPECT_NEAR(3 * loss(silent, {}), loss({kAll, kAll, kAll}, {}, /*audio_tower=*/false), 1e-12);
}

/// The samples of a batch that an index names.
Batch chosen(Batch batch, const std::vector<int64_t>& samples) {
  const int64_t size = batch.size();
  const at::Tensor index = torch::tensor(samples, at::kLong);
  for (at::Tensor* tensor : batch.tensors()) {
    if (!tensor->defined()) continue;
    const int64_t each = tensor->size(0) / size;
    const at::Tensor rows = (index.unsqueeze(1) * each + torch::arange(each)).flatten();
    *tensor = tensor->index_select(0, rows);
  }
  return batch;
}

double loss_of(const Batch& batch, const ContrastiveConfig& config, int64_t views = 1) {
  ContrastiveTask task(
      {.model = make_model(true), .config = config, .views_per_image = views, .missing = true, .seed = 6});
  const auto collective = make_solo_collective();
  return task
      .loss({batch, {}}, {.step = 30, .progress = at::full({}, 0.3, at::kDouble), .collective = *collective})
      .item<double>();
}

TEST(SoundContrast, ConsistencyIsAmongThoseThatHaveBoth) {
  // Without pictures against texts, that of samples without a sound counts for nothing.
  ContrastiveConfig config{.pairs = {.image_text = 0}, .consistency = 0.7};
  Batch batch = make_batch({.image = kAll, .text = kAll, .sound = kMixed.sound});
  std::vector<int64_t> sounding;
  for (int64_t i = 0; i < kSamples; ++i)
    if (kMixed.sound[static_cast<size_t>(i)]) sounding.push_back(i);
  Batch part = chosen(batch, sounding);
  part.has_sound_B = at::Tensor();
  ContrastiveConfig without = config;
  without.consistency = 0;
  const auto added = [&](const Batch& of) { return loss_of(of, config) - loss_of(of, without); };
  EXPECT_GT(added(part), 0.01);
  EXPECT_NEAR(added(batch), added(part), 1e-9);
}

TEST(SoundContrast, ViewsOfMissingPicturesAreNotCompared) {
  Batch batch = make_batch({.image = kMixed.image, .text = kAll, .sound = kAll});
  torch::manual_seed(8);
  batch.image_BCHW = torch::randn({2 * kSamples, 3, 16, 16}, at::kDouble);
  std::vector<int64_t> seen;
  for (int64_t i = 0; i < kSamples; ++i)
    if (kMixed.image[static_cast<size_t>(i)]) seen.push_back(i);
  Batch part = chosen(batch, seen);
  part.has_image_B = at::Tensor();
  const auto added = [](const Batch& of) {
    return loss_of(of, {.view_weight = 0.7}, 2) - loss_of(of, {}, 2);
  };
  EXPECT_GT(added(part), 0.1);
  EXPECT_NEAR(added(batch), added(part), 1e-9);
}

TEST(SoundContrast, TheDiscriminatorTellsThreeApart) {
  const torch::NoGradGuard no_grad;
  ContrastiveTask task({.model = make_model(true), .config = {.reversal = 0.5}, .missing = true, .seed = 6});
  std::map<std::string, at::Tensor> weights;
  for (const auto& [name, parameter] : task.parameters()) weights[name] = parameter;
  const Batch batch = make_batch(kMixed);
  DualTower model = make_model(true);
  const at::Tensor rows[] = {model->embed_image(batch.image_BCHW),
                             model->embed_text(batch.tokens_BT, batch.length_B.clamp_min(1)),
                             model->embed_sound(batch.mel_BFS, batch.frames_B.clamp_min(1))};
  const std::vector<int>* has[] = {&kMixed.image, &kMixed.text, &kMixed.sound};
  double expected = 0;
  for (int64_t m = 0; m < 3; ++m) {
    double sum = 0;
    int count = 0;
    for (int64_t i = 0; i < kSamples; ++i) {
      if (!(*has[m])[static_cast<size_t>(i)]) continue;
      const at::Tensor hidden =
          at::gelu(at::mv(weights.at("discriminator.hidden.weight"), rows[m][i] * std::sqrt(12.0)) +
                   weights.at("discriminator.hidden.bias"));
      const at::Tensor logits =
          at::mv(weights.at("discriminator.out.weight"), hidden) + weights.at("discriminator.out.bias");
      sum -= logits.log_softmax(0)[m].item<double>();
      ++count;
    }
    expected += sum / count / 3;
  }
  EXPECT_NEAR(loss_of(batch, {.reversal = 0.5}) - loss_of(batch, {}), 0.5 * expected, 1e-6);
}

TEST(SoundContrast, TeachesEveryTower) {
  const StepResult step = step_of({"", RegionScore::kNone, {}}, make_batch(kMixed));
  for (const char* name :
       {"vision.patch_embed.weight", "text.embedding", "audio.norm.weight", "audio_projection.weight"}) {
    const auto found = step.gradients.find(name);
    ASSERT_NE(found, step.gradients.end()) << name;
    EXPECT_GT(found->second.abs().max().item<double>(), 1e-8) << name;
  }
}

TEST(SoundContrast, RefusesGapsWhereNoneWereAnnounced) {
  ContrastiveTask task({.model = make_model(true)});
  const auto collective = make_solo_collective();
  EXPECT_THROW(task.loss({make_batch(kMixed), {}}, {.collective = *collective}), Error);
  EXPECT_THROW(task.loss({make_batch({kAll, kAll, kNone}), {}}, {.collective = *collective}), Error);
}

}  // namespace
}  // namespace fathom::sound_contrast_test
