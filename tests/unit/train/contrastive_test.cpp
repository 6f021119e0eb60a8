#include "train/task/contrastive.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "nn/init.h"
#include "tensor/random_keys.h"

namespace fathom {
namespace {

DualTowerConfig tiny(bool logit_bias) {
  DualTowerConfig config;
  config.vision = {.image_size = 16,
                   .patch_size = 2,
                   .dim = 8,
                   .depths = {1, 1},
                   .heads = {2, 2},
                   .window = 4,
                   .drop_path = 0.2};
  config.text = {.vocab_size = 50, .dim = 16, .layers = 2, .heads = 2, .max_positions = 12, .dropout = 0.1};
  config.embed_dim = 12;
  config.logit_bias = logit_bias;
  return config;
}

DualTower make_model(const ContrastiveConfig& config) {
  DualTower model(tiny(config.loss == ContrastiveLoss::kSigmoid));
  init_parameters(*model, 1);
  model->to(at::kDouble);
  return model;
}

ContrastiveTask make_task(const ContrastiveConfig& config) {
  return ContrastiveTask({.model = make_model(config), .config = config, .num_tokens = 10});
}

/// Twelve pairs; the last two share a picture, two others a caption.
Batch make_batch() {
  torch::manual_seed(4);
  Batch batch;
  batch.index_B = torch::arange(12);
  batch.index_B[11] = 10;
  batch.image_BCHW = torch::randn({12, 3, 16, 16}, at::kDouble);
  batch.tokens_BT = torch::randint(0, 50, {12, 10}, at::kLong);
  batch.tokens_BT[3].copy_(batch.tokens_BT[7]);
  batch.length_B = torch::full({12}, 10, at::kLong);
  return batch;
}

std::vector<MicroBatch> split(const Batch& batch, int64_t size) {
  std::vector<MicroBatch> parts;
  for (int64_t start = 0; start < batch.size(); start += size) {
    Batch part = slice_batch(batch, start, std::min(size, batch.size() - start));
    const at::Tensor key_B = make_sample_keys(part.index_B, 5, 6);
    parts.push_back({std::move(part), {.training = true, .key_B = key_B}});
  }
  return parts;
}

struct StepResult {
  double loss = 0;
  int last_backward_calls = 0;
  std::map<std::string, at::Tensor> gradients;
};

StepResult run_step(const ContrastiveConfig& config, int64_t micro_batch_size,
                    const std::vector<std::string>& freeze = {}) {
  ContrastiveTask task = make_task(config);
  freeze_parameters(task.parameters(), freeze);
  const auto collective = make_solo_collective();
  StepResult result;
  const StepContext step{.global_samples = 12, .collective = *collective, .expect_last_backward = [&] {
                           ++result.last_backward_calls;
                         }};
  const std::vector<MicroBatch> parts = split(make_batch(), micro_batch_size);
  result.loss = task.forward_backward(parts, step).item<double>();
  for (const auto& [name, parameter] : task.parameters())
    if (parameter.grad().defined()) result.gradients[name] = parameter.grad();
  return result;
}

class Accumulation : public ::testing::TestWithParam<ContrastiveLoss> {};

TEST_P(Accumulation, EqualsTheWholeBatchWithDropoutOn) {
  const ContrastiveConfig config{.loss = GetParam(), .label_smoothing = 0.05};
  const StepResult whole = run_step(config, 12);
  for (const int64_t size : {3, 5}) {
    const StepResult parts = run_step(config, size);
    EXPECT_NEAR(parts.loss, whole.loss, 1e-10);
    EXPECT_EQ(parts.last_backward_calls, 1);
    ASSERT_EQ(parts.gradients.size(), whole.gradients.size());
    for (const auto& [name, gradient] : whole.gradients)
      EXPECT_TRUE(at::allclose(gradient, parts.gradients.at(name), 1e-6, 1e-9)) << name;
  }
  EXPECT_TRUE(whole.gradients.contains("log_scale"));
}

TEST_P(Accumulation, EqualsTheWholeBatchWithFrozenTowers) {
  const ContrastiveConfig config{.loss = GetParam()};
  const std::vector<std::string> vision = {"vision.*", "image_projection.*"},
                                 text = {"text.*", "text_projection.*"};
  std::vector<std::string> both = vision;
  both.insert(both.end(), text.begin(), text.end());
  for (const std::vector<std::string>& freeze : {vision, text, both}) {
    const StepResult whole = run_step(config, 12, freeze), parts = run_step(config, 5, freeze);
    EXPECT_NEAR(parts.loss, whole.loss, 1e-10);
    EXPECT_EQ(parts.last_backward_calls, 1);
    ASSERT_EQ(parts.gradients.size(), whole.gradients.size());
    for (const auto& [name, gradient] : whole.gradients)
      EXPECT_TRUE(at::allclose(gradient, parts.gradients.at(name), 1e-6, 1e-9)) << name;
    EXPECT_EQ(whole.gradients.contains("text_projection.weight"), freeze == vision);
    EXPECT_EQ(whole.gradients.contains("image_projection.weight"), freeze == text);
    EXPECT_TRUE(whole.gradients.contains("log_scale"));
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, Accumulation,
                         ::testing::Values(ContrastiveLoss::kInfoNce, ContrastiveLoss::kSigmoid));

TEST(ContrastiveTask, EqualCaptionsAreNoNegativesWhenAskedFor) {
  const double matched = run_step({.match_equal_captions = true}, 12).loss;
  const double unmatched = run_step({.match_equal_captions = false}, 12).loss;
  EXPECT_GT(std::abs(matched - unmatched), 1e-4);
}

TEST(ContrastiveTask, SeveralCaptionsAnImageAreAllPositives) {
  ContrastiveTask task = make_task({});
  const auto collective = make_solo_collective();
  const StepContext step{.collective = *collective, .expect_last_backward = [] {}};
  Batch batch = make_batch();
  const double one = task.loss({batch, {}}, step).item<double>();
  batch.tokens_BT = batch.tokens_BT.repeat_interleave(2, 0);
  batch.length_B = batch.length_B.repeat_interleave(2, 0);
  const double twice = task.loss({batch, {}}, step).item<double>();
  // The same caption twice: as many negatives again for each image, nothing new for each text.
  EXPECT_GT(twice, one);
  EXPECT_LT(twice, one + 0.5 * std::log(2.0) + 1e-9);
}

/// Two views of each of four pictures, of which the last two are one picture.
class ViewContrast : public ::testing::Test {
 protected:
  static constexpr double kWeight = 0.7, kTemperature = 0.3;

  ViewContrast() {
    torch::manual_seed(8);
    batch_.index_B = torch::tensor({0, 1, 2, 2}, at::kLong);
    batch_.image_BCHW = torch::randn({8, 3, 16, 16}, at::kDouble);
    batch_.tokens_BT = torch::randint(0, 50, {4, 10}, at::kLong);
    batch_.length_B = torch::full({4}, 10, at::kLong);
  }

  struct Pass {
    double loss = 0;
    std::map<std::string, at::Tensor> parameters;
    at::Tensor gradient(const std::string& name) const { return parameters.at(name).grad(); }
  };
  Pass run(double weight) const {
    const ContrastiveConfig config{.self_weight = weight, .self_temperature = kTemperature};
    ContrastiveTask task({.model = make_model(config), .config = config, .views_per_image = 2, .seed = 6});
    const auto collective = make_solo_collective();
    const at::Tensor loss = task.loss({batch_, {}}, {.collective = *collective});
    loss.backward();
    Pass pass{.loss = loss.item<double>()};
    for (const auto& [name, parameter] : task.parameters()) pass.parameters[name] = parameter;
    return pass;
  }
  /// The definition, one pair of views after another.
  double by_hand(const Pass& pass) const {
    const at::NoGradGuard no_grad;
    const auto weight = [&](const char* name) { return pass.parameters.at(name); };
    const at::Tensor pooled_VD = make_model({})->vision()->forward(batch_.image_BCHW, {});
    const at::Tensor hidden_VD = at::gelu(
        at::addmm(weight("view_head.hidden.bias"), pooled_VD, weight("view_head.hidden.weight").t()));
    const at::Tensor view_VD =
        at::addmm(weight("view_head.out.bias"), hidden_VD, weight("view_head.out.weight").t());
    const int64_t owner[] = {0, 0, 1, 1, 2, 2, 2, 2};
    const auto likeness = [&](int64_t i, int64_t j) {  // exp(cosine ÷ temperature)
      const at::Tensor a = view_VD[i], b = view_VD[j];
      return std::exp((a.dot(b) / a.norm() / b.norm()).item<double>() / kTemperature);
    };
    double sum = 0;
    for (int64_t i = 0; i < 8; ++i) {
      double others = 0, of_row = 0;
      int positives = 0;
      for (int64_t j = 0; j < 8; ++j) others += owner[j] == owner[i] ? 0 : likeness(i, j);
      for (int64_t j = 0; j < 8; ++j) {
        if (j == i || owner[j] != owner[i]) continue;
        of_row -= std::log(likeness(i, j) / (likeness(i, j) + others));
        ++positives;
      }
      sum += of_row / positives;
    }
    return sum / 8;
  }

  Batch batch_;
};

TEST_F(ViewContrast, AddsItsWeightTimesTheDefinition) {
  const Pass without = run(0), with = run(kWeight);
  const double expected = by_hand(with);
  EXPECT_GT(expected, 0.1);
  EXPECT_NEAR(with.loss - without.loss, kWeight * expected, 1e-9);
}

TEST_F(ViewContrast, TeachesTheVisionTowerAndNotTheText) {
  const Pass without = run(0), with = run(kWeight);
  for (const auto& [name, parameter] : without.parameters) {
    if (!parameter.grad().defined()) continue;
    const double difference = (with.gradient(name) - parameter.grad()).abs().max().item<double>();
    if (name.starts_with("vision."))
      EXPECT_GT(difference, 1e-9) << name;
    else
      EXPECT_LT(difference, 1e-12) << name;
  }
  EXPECT_GT(with.gradient("view_head.out.weight").abs().max().item<double>(), 1e-6);
}

TEST_F(ViewContrast, IsAbsentAtWeightZero) {
  for (const auto& [name, parameter] : run(0).parameters)
    EXPECT_FALSE(name.starts_with("view_head.")) << name;
  EXPECT_TRUE(run(kWeight).parameters.contains("view_head.hidden.weight"));
}

}  // namespace
}  // namespace fathom
