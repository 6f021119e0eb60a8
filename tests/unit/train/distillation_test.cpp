// What a dual tower learns from others, against its definition, and that each switch has an effect.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <vector>

#include "gradcheck.h"
#include "pair_rows.h"

namespace fathom::testing::distillation_test {
namespace {

DualTower make_teacher(int64_t seed) {
  DualTower teacher = make_model({});
  init_parameters(*teacher, seed);
  const torch::NoGradGuard no_grad;
  for (at::Tensor& parameter : teacher->parameters()) parameter.mul_(1.5);  // their scales, too
  return teacher;
}

ContrastiveConfig learning(double share, double temperature, double embedding_weight) {
  return {.distillation = {.teachers = {"two of them"},
                           .share = share,
                           .temperature = temperature,
                           .embedding_weight = embedding_weight}};
}

/// Rows of five samples beside what two teachers, whose spaces have other widths, make of them.
class Distilled : public PairRows {
 protected:
  Distilled() {
    for (const int64_t dim : {7, 9})
      taught_.push_back({unit_length(torch::randn({2 * kSamples, dim}, at::kDouble)),
                         unit_length(torch::randn({2 * kSamples, dim}, at::kDouble))});
  }
  ContrastiveRows taught_rows(int64_t start = 0, int64_t count = kSamples) const {
    ContrastiveRows rows = PairRows::rows(start, count);
    for (const auto& [image_ND, text_MD] : taught_)
      rows.taught.push_back(
          {image_ND.narrow(0, 2 * start, 2 * count), text_MD.narrow(0, 2 * start, 2 * count)});
    return rows;
  }
  at::Tensor distilled_loss(const ContrastiveConfig& config, const ContrastiveRows& rows) const {
    return ContrastiveObjective({.model = model_, .config = config, .teachers = teachers_})
        .loss(rows, {.collective = *collective_});
  }
  /// Of rows [R, D] over columns, one number after another.
  double soft_part(const at::Tensor& logits_RC, at::Tensor TaughtRows::*row, at::Tensor TaughtRows::*column,
                   double temperature) const {
    double sum = 0;
    for (int64_t r = 0; r < logits_RC.size(0); ++r)
      for (int64_t c = 0; c < logits_RC.size(1); ++c) {
        double judged = 0;
        for (size_t k = 0; k < taught_.size(); ++k) {
          const double scale = models_[k]->logit_scale().item<double>() / temperature;
          const at::Tensor seen_C = at::mv(taught_[k].*column, (taught_[k].*row)[r]) * scale;
          judged += std::exp((seen_C[c] - seen_C.logsumexp({0})).item<double>()) / 2;
        }
        sum -= judged * (logits_RC[r] / temperature).log_softmax(0)[c].item<double>();
      }
    return sum;
  }

  std::vector<DualTower> models_ = {make_teacher(21), make_teacher(22)};
  std::shared_ptr<const Teachers> teachers_ = std::make_shared<Teachers>(models_);
  std::vector<TaughtRows> taught_;
};

TEST_F(Distilled, ShareIsCrossEntropyWithTheMeanOfWhatTeachersFindSimilar) {
  const double plain = loss().item<double>();
  for (const double temperature : {1.0, 3.0}) {
    const at::Tensor logits_VM = (at::mm(image_, text_.t()) * model_->logit_scale()).detach();
    const double soft = soft_part(logits_VM, &TaughtRows::image_ND, &TaughtRows::text_MD, temperature) +
                        soft_part(logits_VM.t(), &TaughtRows::text_MD, &TaughtRows::image_ND, temperature);
    const double expected = 0.6 * plain + 0.4 * temperature * temperature * soft / (2 * 2 * kSamples);
    const double found = distilled_loss(learning(0.4, temperature, 0), taught_rows()).item<double>();
    EXPECT_NEAR(found, expected, 1e-9);
    EXPECT_GT(std::abs(found - plain), 0.01);
  }
}

TEST_F(Distilled, GradientsAreTheDerivatives) {
  expect_leaf_gradients([&] { return distilled_loss(learning(0.4, 2, 0), taught_rows()); }, {image_, text_});
}

TEST_F(Distilled, JoinedPartsAreTheWholeBatch) {
  const ContrastiveConfig config = learning(0.4, 2, 0);
  EXPECT_NEAR(
      distilled_loss(config, ContrastiveRows::join({taught_rows(0, 2), taught_rows(2, 3)})).item<double>(),
      distilled_loss(config, taught_rows()).item<double>(), 1e-12);
}

TEST_F(Distilled, EmbeddingLossIsTheMeanDistanceAfterTheMaps) {
  DualTowerConfig first, second;
  first.embed_dim = 7;
  second.embed_dim = 9;
  TeacherHeads heads(12, std::vector<DualTowerConfig>{first, second});
  init_parameters(*heads, 3);
  heads->to(at::kDouble);
  const auto maps = heads->named_parameters();
  at::Tensor expected_B = at::zeros({kSamples}, at::kDouble);
  for (size_t k = 0; k < 2; ++k)
    for (int64_t row = 0; row < 2 * kSamples; ++row) {
      const std::string number = std::to_string(k);
      const auto cosine = [&](const at::Tensor& weight, const at::Tensor& x_D, const at::Tensor& target_D) {
        const at::Tensor mapped_D = at::mv(weight, x_D);
        return mapped_D.dot(target_D) / mapped_D.norm();
      };
      expected_B[row / 2] +=
          (2 - cosine(maps["image" + number + ".weight"], image_[row], taught_[k].image_ND[row]) -
           cosine(maps["text" + number + ".weight"], text_[row], taught_[k].text_MD[row]))
              .detach() /
          8;
    }
  EXPECT_TRUE(at::allclose(heads->loss(image_, text_, taught_, kSamples), expected_B, 1e-9, 1e-12));
  expect_leaf_gradients([&] { return heads->loss(image_, text_, taught_, kSamples).sum(); }, {image_, text_});
}

Batch two_of_each() {
  Batch batch = make_batch();
  batch.image_BCHW = torch::randn({24, 3, 16, 16}, at::kDouble);
  batch.tokens_BT = torch::randint(0, 50, {24, 10}, at::kLong);
  batch.length_B = torch::randint(1, 11, {24}, at::kLong);
  return batch;
}

StepResult taught_step(ContrastiveConfig config, int64_t size = 12) {
  ContrastiveTask::Setup setup{.model = make_model(config),
                               .config = config,
                               .captions_per_image = 2,
                               .views_per_image = 2,
                               .seed = 6};
  if (config.distillation.on()) setup.teachers = {make_teacher(21), make_teacher(22)};
  ContrastiveTask task(std::move(setup));
  return run_step(task, split(two_of_each(), size));
}

TEST(Distillation, EachSwitchChangesWhatBothTowersLearn) {
  const StepResult plain = taught_step({});
  for (const ContrastiveConfig& config : {learning(0.5, 1, 0), learning(0.5, 3, 0), learning(0, 1, 1)}) {
    const StepResult with = taught_step(config);
    for (const char* name : {"vision.patch_embed.weight", "text.embedding"})
      EXPECT_GT((plain.gradients.at(name) - with.gradients.at(name)).abs().max().item<double>(), 1e-7)
          << name;
  }
}

TEST(Distillation, AccumulationEqualsTheWholeBatch) {
  ContrastiveConfig config = learning(0.5, 2, 1);
  config.mixup = 1;
  config.view_weight = 0.4;
  const StepResult whole = taught_step(config);
  for (const int64_t size : {2, 4}) expect_equal(taught_step(config, size), whole, 1e-9);
}

TEST(Distillation, TeachersAreNoneOfTheParameters) {
  const StepResult with = taught_step(learning(0.5, 1, 1)), without = taught_step({});
  EXPECT_EQ(with.gradients.size(), without.gradients.size() + 4) << "a map a modality and teacher";
}

TEST(Distillation, EmbeddingsCountByTheirWeight) {
  const auto loss = [](double weight) { return taught_step(learning(0.5, 1, weight)).loss; };
  EXPECT_NEAR(loss(3) - loss(0), 3 * (loss(1) - loss(0)), 1e-9);
  EXPECT_GT(loss(1) - loss(0), 0.01);
}

/// Dropout, mixing and all that is drawn is the learner's; a teacher sees what comes of it, whole.
TEST(Distillation, ATeacherSeesTheMixedPictureAndDropsNothing) {
  const torch::NoGradGuard no_grad;
  ContrastiveConfig config = learning(1, 1, 0);
  config.mixup = 1;
  const MicroBatch part = split(two_of_each(), 12).front();
  DualTower model = make_model(config), teacher = make_teacher(21);
  const MixedPictures mixed = PictureMixing({.alpha = 1, .cutmix_share = 0, .mix_share = 1})
                                  .mix(part.batch.image_BCHW, part.forward.key_B);
  EXPECT_GT(mixed.share_B.lt(1).sum().item<int64_t>(), 4);
  ForwardContext forward = part.forward;
  forward.key_B = keys_of_rows(forward.key_B, 2);
  const at::Tensor image_VD = model->embed_image(mixed.image_NCHW, forward),
                   text_MD = model->embed_text(part.batch.tokens_BT, part.batch.length_B, forward);
  const at::Tensor taught_VM = at::mm(teacher->embed_image(mixed.image_NCHW),
                                      teacher->embed_text(part.batch.tokens_BT, part.batch.length_B).t()) *
                               teacher->logit_scale();
  const at::Tensor logits_VM = at::mm(image_VD, text_MD.t()) * model->logit_scale();
  const double expected = (soft_cross_entropy(logits_VM, taught_VM.softmax(1)) +
                           soft_cross_entropy(logits_VM.t(), taught_VM.t().softmax(1)))
                              .item<double>() /
                          (2 * 24);
  ContrastiveTask task({.model = model,
                        .config = config,
                        .captions_per_image = 2,
                        .views_per_image = 2,
                        .seed = 6,
                        .teachers = {teacher}});
  const auto collective = make_solo_collective();
  EXPECT_NEAR(task.loss(part, {.collective = *collective}).item<double>(), expected, 1e-9);
}

TEST(Distillation, AModelThatIsItsOwnTeacherHasNothingToLearnOfIt) {
  const ContrastiveConfig config = learning(1, 1, 0);
  ContrastiveTask task({.model = make_model(config),
                        .config = config,
                        .captions_per_image = 2,
                        .views_per_image = 2,
                        .teachers = {make_model(config)}});
  std::vector<MicroBatch> parts = split(two_of_each(), 12);
  parts.front().forward = {};  // dropping nothing either
  for (const auto& [name, gradient] : run_step(task, parts).gradients)
    EXPECT_LT(gradient.abs().max().item<double>(), 1e-9) << name;
}

}  // namespace
}  // namespace fathom::testing::distillation_test
