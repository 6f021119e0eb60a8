// The classification task: its loss by definition, smoothing and mixing as switches, shares that add up.
#include "train/task/classification.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"
#include "evaluate/classifier_run.h"
#include "nn/init.h"
#include "tensor/random_keys.h"

namespace fathom::classification_test {
namespace {

ClassifierConfig tiny() {
  return {.audio = {.bands = 8, .dim = 16, .layers = 1, .heads = 2, .mlp_dim = 16, .max_frames = 30},
          .classes = {"a", "b", "c"}};
}

class ClassificationLoss : public ::testing::Test {
 protected:
  ClassificationLoss() {
    init_parameters(*model_, 1);
    torch::manual_seed(2);
    batch_.index_B = at::arange(6);
    batch_.mel_BFS = at::randn({6, 8, 20});
    batch_.frames_B = at::full({6}, 20, at::kLong);
    batch_.label_B = at::tensor({0, 1, 2, 2, 1, 0}, at::kLong);
  }
  double loss(const ClassificationConfig& config, int64_t start = 0, int64_t count = 6) {
    ClassificationTask task({.model = model_, .config = config});
    const MicroBatch micro{
        slice_batch(batch_, start, count),
        {.training = true, .key_B = make_sample_keys(batch_.index_B, 1, 0).slice(0, start, start + count)}};
    return task.loss(micro, {.global_samples = 6, .collective = *collective_}).item<double>();
  }

  Classifier model_{tiny()};
  Batch batch_;
  std::unique_ptr<Collective> collective_ = make_solo_collective();
};

TEST_F(ClassificationLoss, IsMeanCrossEntropyInShares) {
  const auto logits = classify(model_, batch_);
  const double expected = at::cross_entropy_loss(logits, batch_.label_B).item<double>();
  EXPECT_NEAR(loss({}), expected, 1e-6);
  EXPECT_NEAR(loss({}, 0, 2) + loss({}, 2, 4), expected, 1e-6);
}

TEST_F(ClassificationLoss, SmoothsLabels) {
  const auto log_p = at::log_softmax(classify(model_, batch_), 1);
  const auto right = log_p.gather(1, batch_.label_B.unsqueeze(1)).squeeze(1);
  const double expected = -(0.8 * right + 0.2 * log_p.mean(1)).mean().item<double>();
  EXPECT_NEAR(loss({.label_smoothing = 0.2}), expected, 1e-6);
}

TEST_F(ClassificationLoss, MixesNeighboursByKey) {
  const double mixed = loss({.mixup = 0.4});
  EXPECT_GT(std::abs(mixed - loss({})), 1e-4);
  EXPECT_EQ(mixed, loss({.mixup = 0.4}));
  batch_.mel_BFS = batch_.mel_BFS.slice(0, 0, 1).expand({6, -1, -1}).clone();
  batch_.label_B.fill_(1);
  EXPECT_NEAR(loss({.mixup = 0.4}), loss({}), 1e-6) << "equal samples mix to themselves";
}

TEST_F(ClassificationLoss, SharesFollowTheBetaDistribution) {
  for (const double alpha : {0.01, 0.4, 1.0, 100.0}) {
    const at::Tensor share_N = mixup_shares(alpha);
    EXPECT_GE(share_N.min().item<double>(), 0.5);
    EXPECT_LE(share_N.max().item<double>(), 1.0);
    // The variance of Beta(α, α) is that of its mirrored half around ½.
    const double variance = 0.25 / (2 * alpha + 1);
    EXPECT_NEAR((share_N - 0.5).square().mean().item<double>() / variance, 1, 0.03) << alpha;
  }
}

TEST_F(ClassificationLoss, LearnsWhatItIsTold) {
  ClassificationTask task({.model = model_});
  std::vector<at::Tensor> parameters;
  for (auto& [name, parameter] : task.parameters()) parameters.push_back(parameter);
  torch::optim::Adam optimizer(parameters, torch::optim::AdamOptions(0.01));
  for (int step = 0; step < 60; ++step) {
    optimizer.zero_grad();
    task.loss({batch_, {}}, {.global_samples = 6, .collective = *collective_}).backward();
    optimizer.step();
  }
  EXPECT_LT(loss({}), 0.05);
}

}  // namespace
}  // namespace fathom::classification_test
