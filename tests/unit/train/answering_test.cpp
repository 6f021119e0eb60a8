#include "train/task/answering.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "nn/init.h"
#include "tensor/random_keys.h"

namespace fathom {
namespace {

AnsweringTask make_task(AnswerKind answer, Fusion* model = nullptr) {
  FusionConfig config;
  config.vision = {.image_size = 16,
                   .patch_size = 2,
                   .dim = 8,
                   .depths = {1, 1},
                   .heads = {2, 2},
                   .window = 4,
                   .drop_path = 0.2};
  config.text = {.vocab_size = 50, .dim = 16, .layers = 2, .heads = 2, .max_positions = 12, .dropout = 0.1};
  config.early_layers = 1;
  config.initial_gate = 1;
  config.answer = answer;
  if (answer == AnswerKind::kClasses) config.answers = {"a", "b", "c"};
  Fusion fusion(config);
  init_parameters(*fusion, 1);
  fusion->to(at::kDouble);
  if (model) *model = fusion;
  return AnsweringTask({.model = fusion, .num_tokens = 10});
}

/// Eight questions of different lengths, the fourth with an answer that is no class.
Batch make_batch() {
  torch::manual_seed(4);
  Batch batch;
  batch.index_B = torch::arange(8);
  batch.image_BCHW = torch::randn({8, 3, 16, 16}, at::kDouble);
  batch.tokens_BT = torch::randint(0, 50, {8, 10}, at::kLong);
  batch.prompt_length_B = torch::tensor({3, 4, 5, 6, 7, 3, 4, 5}, at::kLong);
  batch.length_B = batch.prompt_length_B + torch::tensor({1, 2, 3, 1, 2, 3, 1, 2}, at::kLong);
  batch.label_B = torch::tensor({0, 1, 2, -1, 0, 1, 2, 0}, at::kLong);
  return batch;
}

std::vector<MicroBatch> split(const Batch& batch, int64_t size) {
  std::vector<MicroBatch> parts;
  for (int64_t start = 0; start < batch.size(); start += size) {
    Batch part = slice_batch(batch, start, size);
    const at::Tensor key_B = make_sample_keys(part.index_B, 5, 6);
    parts.push_back({std::move(part), {.training = true, .key_B = key_B}});
  }
  return parts;
}

struct StepResult {
  double loss = 0;
  std::vector<at::Tensor> gradients;
};

StepResult run_step(AnswerKind answer, int64_t micro_batch) {
  AnsweringTask task = make_task(answer);
  const auto solo = make_solo_collective();
  const StepContext step{.global_samples = 8, .collective = *solo, .expect_last_backward = [] {}};
  const auto parts = split(make_batch(), micro_batch);
  task.before_step(parts, step);
  StepResult result{.loss = task.forward_backward(parts, step).item<double>()};
  for (const auto& [name, parameter] : task.parameters())
    result.gradients.push_back(parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter));
  return result;
}

class EveryAnswer : public ::testing::TestWithParam<AnswerKind> {};
INSTANTIATE_TEST_SUITE_P(All, EveryAnswer, ::testing::Values(AnswerKind::kClasses, AnswerKind::kGenerated));

TEST_P(EveryAnswer, AccumulationEqualsTheWholeBatch) {
  const StepResult whole = run_step(GetParam(), 8), parts = run_step(GetParam(), 2);
  EXPECT_NEAR(whole.loss, parts.loss, 1e-12);
  for (size_t i = 0; i < whole.gradients.size(); ++i)
    EXPECT_LT((whole.gradients[i] - parts.gradients[i]).abs().max().item<double>(), 1e-12);
}

TEST(Answering, ClassesAreAveragedOverThoseThatHaveOne) {
  Fusion model{nullptr};
  AnsweringTask task = make_task(AnswerKind::kClasses, &model);
  const auto solo = make_solo_collective();
  const StepContext step{.global_samples = 8, .collective = *solo};
  const std::vector<MicroBatch> parts = {{make_batch(), {}}};
  task.before_step(parts, step);
  const torch::NoGradGuard no_grad;
  const Batch& batch = parts[0].batch;
  const at::Tensor share_BC = model
                                  ->class_logits(model->perceive(batch.image_BCHW),
                                                 {batch.tokens_BT, batch.length_B, batch.prompt_length_B})
                                  .log_softmax(1);
  double expected = 0;
  for (const int64_t b : {0, 1, 2, 4, 5, 6, 7})
    expected -= share_BC[b][batch.label_B[b].item<int64_t>()].item<double>() / 7;
  EXPECT_NEAR(task.loss(parts[0], step).item<double>(), expected, 1e-12);
}

TEST(Answering, OnlyTheTokensOfAnswersAreLearned) {
  Fusion model{nullptr};
  AnsweringTask task = make_task(AnswerKind::kGenerated, &model);
  const auto solo = make_solo_collective();
  const StepContext step{.global_samples = 8, .collective = *solo};
  const std::vector<MicroBatch> parts = {{make_batch(), {}}};
  task.before_step(parts, step);
  const torch::NoGradGuard no_grad;
  const Batch& batch = parts[0].batch;
  const PromptedTokens text{batch.tokens_BT, batch.length_B, batch.prompt_length_B};
  const at::Tensor share_BTV =
      model->text()->logits(model->hidden(model->perceive(batch.image_BCHW), text)).log_softmax(2);
  double expected = 0;
  for (int64_t b = 0; b < 8; ++b)
    for (int64_t t = batch.prompt_length_B[b].item<int64_t>(); t < batch.length_B[b].item<int64_t>(); ++t)
      expected -= share_BTV[b][t - 1][batch.tokens_BT[b][t].item<int64_t>()].item<double>() / 15;
  EXPECT_NEAR(task.loss(parts[0], step).item<double>(), expected, 1e-12);
}

}  // namespace
}  // namespace fathom
