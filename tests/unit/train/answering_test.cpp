#include "train/task/answering.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "nn/init.h"
#include "step_fixture.h"
#include "tiny_encoders.h"

namespace fathom::answering_test {
namespace {

using testing::split;
using testing::StepResult;

AnsweringTask make_task(AnswerKind answer, Fusion* model = nullptr, const AnsweringConfig& objective = {},
                        bool captions = false, int64_t questions_per_image = 1) {
  FusionConfig config;
  config.vision = testing::tiny_vision();
  config.text = testing::tiny_text();
  config.early_layers = 1;
  config.initial_gate = 1;
  config.answer = answer;
  config.captions = captions;
  if (answer == AnswerKind::kClasses) config.answers = {"a", "b", "c"};
  Fusion fusion(config);
  init_parameters(*fusion, 1);
  fusion->to(at::kDouble);
  if (model) *model = fusion;
  return AnsweringTask({.model = fusion,
                        .config = objective,
                        .num_tokens = 10,
                        .questions_per_image = questions_per_image,
                        .mean_questions = static_cast<double>(questions_per_image),
                        .seed = 3});
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

/// The same with a caption behind each question.
Batch make_captioned_batch() {
  Batch batch = make_batch();
  const at::Tensor caption_BT = torch::randint(0, 50, {8, 10}, at::kLong);
  const at::Tensor length_B = torch::tensor({5, 9, 2, 10, 4, 4, 7, 8}, at::kLong);
  batch.tokens_BT = at::stack({batch.tokens_BT, caption_BT}, 1).flatten(0, 1);
  batch.length_B = at::stack({batch.length_B, length_B}, 1).flatten(0, 1);
  return batch;
}

constexpr int64_t kEach = 3;

/// Four pictures with captions, three questions about each.
Batch make_shared_batch() {
  torch::manual_seed(5);
  Batch batch;
  batch.index_B = torch::arange(4);
  batch.image_BCHW = torch::randn({4, 3, 16, 16}, at::kDouble);
  batch.tokens_BT = torch::randint(0, 50, {4 * (kEach + 1), 10}, at::kLong);
  batch.prompt_length_B = torch::randint(2, 7, {4 * kEach}, at::kLong);
  const at::Tensor length_BK =
      (batch.prompt_length_B + torch::randint(1, 4, {4 * kEach}, at::kLong)).view({4, kEach});
  batch.length_B = at::cat({length_BK, torch::randint(2, 11, {4, 1}, at::kLong)}, 1).flatten();
  batch.label_B = torch::tensor({0, 1, 2, -1, 0, 1, 2, 0, 0, 1, 1, 2}, at::kLong);
  return batch;
}

/// The first and the last picture have one and two questions only.
Batch make_batch_with_gaps() {
  Batch batch = make_shared_batch();
  for (const int64_t row : {1, 2, 11}) {
    batch.prompt_length_B[row] = 0;
    batch.label_B[row] = -1;
    const int64_t token_row = row / kEach * (kEach + 1) + row % kEach;
    batch.tokens_BT[token_row].fill_(0);
    batch.length_B[token_row] = 1;
  }
  return batch;
}

Batch without_captions(Batch batch) {
  const auto questions = [](const at::Tensor& rows) {
    return rows.unflatten(0, {4, kEach + 1}).slice(1, 0, kEach).flatten(0, 1).contiguous();
  };
  batch.tokens_BT = questions(batch.tokens_BT);
  batch.length_B = questions(batch.length_B);
  return batch;
}

/// The same questions, each a sample of its own.
Batch one_by_one(const Batch& shared) {
  const at::Tensor row_N = shared.prompt_length_B.gt(0).nonzero().squeeze(1);
  const at::Tensor sample_N = row_N.div(kEach, "floor");
  const int64_t rows_each = shared.tokens_BT.size(0) / 4;
  Batch batch;
  batch.index_B = row_N;
  batch.image_BCHW = shared.image_BCHW.index_select(0, sample_N);
  batch.label_B = shared.label_B.index_select(0, row_N);
  batch.prompt_length_B = shared.prompt_length_B.index_select(0, row_N);
  at::Tensor token_row = (sample_N * rows_each + row_N.remainder(kEach)).unsqueeze(1);
  if (rows_each > kEach) token_row = at::cat({token_row, (sample_N * rows_each + kEach).unsqueeze(1)}, 1);
  batch.tokens_BT = shared.tokens_BT.index_select(0, token_row.flatten());
  batch.length_B = shared.length_B.index_select(0, token_row.flatten());
  return batch;
}

StepResult run_step(AnsweringTask task, const std::vector<MicroBatch>& parts) {
  return testing::run_step(task, parts);
}

StepResult run_step(AnswerKind answer, int64_t micro_batch, const AnsweringConfig& objective = {},
                    bool captions = false) {
  return run_step(make_task(answer, nullptr, objective, captions),
                  split(captions ? make_captioned_batch() : make_batch(), micro_batch));
}

void expect_equal(const StepResult& got, const StepResult& expected) {
  testing::expect_equal(got, expected, 1e-12);
}

class EveryAnswer : public ::testing::TestWithParam<AnswerKind> {};
INSTANTIATE_TEST_SUITE_P(All, EveryAnswer, ::testing::Values(AnswerKind::kClasses, AnswerKind::kGenerated));

TEST_P(EveryAnswer, AccumulationEqualsTheWholeBatch) {
  expect_equal(run_step(GetParam(), 2), run_step(GetParam(), 8));
}

TEST_P(EveryAnswer, AccumulationEqualsTheWholeBatchWithTwoModalities) {
  const AnsweringConfig objective{.modality_dropout = 0.6, .consistency = 0.5, .reversal = 0.7};
  const StepResult whole = run_step(GetParam(), 8, objective, true);
  expect_equal(run_step(GetParam(), 2, objective, true), whole);
  EXPECT_GT(std::abs(whole.loss - run_step(GetParam(), 8, {}, true).loss), 1e-6);
}

TEST_P(EveryAnswer, QuestionsThatShareAPictureEqualThoseThatEachHaveIt) {
  for (const Batch& shared :
       {make_shared_batch(), make_batch_with_gaps(), without_captions(make_shared_batch())}) {
    const bool captions = shared.tokens_BT.size(0) > 4 * kEach;
    const bool gaps = shared.prompt_length_B.min().item<int64_t>() == 0;
    AnsweringConfig objective{.label_smoothing = 0.1};
    if (captions) objective.consistency = 0.5;
    if (captions && !gaps) objective.reversal = 0.7;  // counts pictures, not questions
    const StepResult together =
        run_step(make_task(GetParam(), nullptr, objective, captions, kEach), {{shared, {}}});
    expect_equal(together,
                 run_step(make_task(GetParam(), nullptr, objective, captions), {{one_by_one(shared), {}}}));
  }
}

TEST_P(EveryAnswer, AccumulationEqualsTheWholeBatchWithSharedPictures) {
  const AnsweringConfig objective{.modality_dropout = 0.6, .consistency = 0.5, .reversal = 0.7};
  const auto run = [&](int64_t size, const AnsweringConfig& config) {
    return run_step(make_task(GetParam(), nullptr, config, true, kEach), split(make_batch_with_gaps(), size));
  };
  const StepResult whole = run(4, objective);
  expect_equal(run(1, objective), whole);
  expect_equal(run(2, objective), whole);
  EXPECT_GT(std::abs(whole.loss - run(4, {.consistency = 0.5, .reversal = 0.7}).loss), 1e-6);
}

/// The same question three times.
TEST_P(EveryAnswer, EachQuestionAboutAPictureDropsOnItsOwn) {
  Batch single = make_batch(), thrice = single;
  for (at::Tensor Batch::*rows :
       {&Batch::tokens_BT, &Batch::length_B, &Batch::prompt_length_B, &Batch::label_B})
    thrice.*rows = (single.*rows).repeat_interleave(kEach, 0);
  const auto loss_of = [&](const Batch& batch, int64_t each, bool drops) {
    std::vector<MicroBatch> parts = split(batch, 8);
    if (!drops) parts[0].forward = {};
    return run_step(make_task(GetParam(), nullptr, {}, false, each), parts).loss;
  };
  EXPECT_NEAR(loss_of(single, 1, false), loss_of(thrice, kEach, false), 1e-12);
  EXPECT_GT(std::abs(loss_of(single, 1, true) - loss_of(thrice, kEach, true)), 1e-6);
  EXPECT_EQ(loss_of(thrice, kEach, true), loss_of(thrice, kEach, true));
}

TEST(Answering, FiguresCountAPictureOnceAndItsQuestionsEach) {
  const auto flops = [](int64_t each) {
    return make_task(AnswerKind::kClasses, nullptr, {}, true, each).flops_per_sample();
  };
  Fusion model{nullptr};
  make_task(AnswerKind::kClasses, &model);
  EXPECT_DOUBLE_EQ(flops(3) - flops(2), flops(2) - flops(1));
  EXPECT_GT(2 * flops(1) - flops(2), 3.0 * static_cast<double>(forward_flops(model->config().vision, 1)));
  EXPECT_GT(flops(2), flops(1));
  EXPECT_EQ(make_task(AnswerKind::kClasses, nullptr, {}, true, 3).questions_per_sample(), 3);
}

/// A task, its model, and one loss in evaluation.
struct Trial {
  explicit Trial(const AnsweringConfig& objective, AnswerKind answer = AnswerKind::kClasses)
      : task(make_task(answer, &model, objective, true)) {}
  at::Tensor loss(const MicroBatch& part) {
    const auto solo = make_solo_collective();
    const StepContext step{
        .step = 3, .progress = at::full({}, 0.3, at::kDouble), .global_samples = 8, .collective = *solo};
    task.before_step(std::span(&part, 1), step);
    return task.loss(part, step);
  }
  Fusion model{nullptr};
  AnsweringTask task;
};

TEST(Answering, ConsistencyIsTheDivergenceOfBothAnswers) {
  Trial with({.consistency = 2}), without({});
  const MicroBatch part{make_captioned_batch(), {}};
  const torch::NoGradGuard no_grad;
  const Percept percept = perceive(with.model, part.batch);
  const PromptedTokens text = asked_texts(part.batch).question;
  const auto log_shares = [&](const Percept& seen) {
    return with.model->class_logits(seen, text).log_softmax(1);
  };
  const auto p = log_shares({.image = percept.image}),
             q = log_shares({.image = {}, .caption = percept.caption});
  const double divergence = ((p.exp() - q.exp()) * (p - q)).sum().item<double>() / 2 / 8;
  EXPECT_GT(divergence, 1e-6);
  EXPECT_NEAR((with.loss(part) - without.loss(part)).item<double>(), 2 * divergence, 1e-12);
}

/// Gradients of the model's parameters, zeros where there are none.
std::vector<at::Tensor> gradients_of(const Trial& trial) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : trial.model->parameters())
    gradients.push_back(parameter.grad().defined() ? parameter.grad().clone() : at::zeros_like(parameter));
  return gradients;
}

/// A caption and its question are two passes over one sample, consistency makes two more.
TEST(Answering, GatesWeighASampleOnceAndCountItsTokensOnce) {
  Fusion plain{nullptr};
  make_task(AnswerKind::kClasses, &plain, {}, true);
  FusionConfig config = plain->config();
  config.text.gate = {.kind = GateKind::kCausal};
  constexpr double kMultiplier = 3;
  const Batch batch = make_captioned_batch();
  for (const double consistency : {0.0, 0.5}) {
    Fusion model(config);
    init_parameters(*model, 1);
    model->to(at::kDouble);
    TokenGate gate = gates_of(*model->text()).front().gate;
    at::Tensor bias = gate->named_parameters()["scorer.bias"];
    {
      const torch::NoGradGuard no_grad;
      gate->named_parameters()["scorer.out"].zero_();
    }
    const AnsweringTask task({.model = model, .config = {.consistency = consistency}, .num_tokens = 10});
    const auto gradient = [&](double multiplier) {
      gate->set_multiplier(at::full({}, multiplier, at::kDouble));
      gate->reset_counts();
      bias.mutable_grad() = at::Tensor();
      std::vector<MicroBatch> parts = split(batch, 8);
      parts[0].forward.sample_share = 1.0 / 8;
      run_step(task, parts);
      return bias.grad().item<double>();
    };
    const double without = gradient(0), with = gradient(kMultiplier);
    const double score = at::sigmoid(bias).item<double>();
    EXPECT_NEAR(with - without, kMultiplier * score * (1 - score), 1e-9) << consistency;
    EXPECT_EQ(gate->counts()[GateCounts::kTokens].item<int64_t>(), batch.length_B.sum().item<int64_t>());
  }
}

TEST(Answering, ReversalTurnsWhatTheDiscriminatorWants) {
  const MicroBatch part{make_captioned_batch(), {}};
  Trial with({.reversal = 0.5}), without({}), wanted({});
  with.loss(part).backward();
  without.loss(part).backward();
  ModalityDiscriminator discriminator(16, 2);
  discriminator->to(at::kDouble);
  {
    const torch::NoGradGuard no_grad;
    for (const auto& [name, parameter] : with.task.parameters())
      if (name.starts_with("discriminator."))
        discriminator->named_parameters()[name.substr(14)].copy_(parameter);
  }
  const Percept percept = perceive(wanted.model, part.batch);
  const at::Tensor caption_BD = percept.caption.token_BSD.sum(1) / percept.caption.mask_BS.sum(1, true);
  const auto unit = [](const at::Tensor& x) { return x / x.norm(2, {1}, true); };
  const double strength = 2 / (1 + std::exp(-10 * 0.3)) - 1;
  discriminator
      ->adversarial_loss({{.embedding_ND = unit(percept.image.token_BSD.mean(1)), .count = {.known = 8}},
                          {.embedding_ND = unit(caption_BD), .count = {.known = 8}}},
                         /*strength=*/at::full({}, -1.0, at::kDouble))
      .backward();
  const auto all = gradients_of(with), answers = gradients_of(without), wish = gradients_of(wanted);
  double largest = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_LT((all[i] - answers[i] + 0.5 * strength * wish[i]).abs().max().item<double>(), 1e-10);
    largest = std::max(largest, wish[i].abs().max().item<double>());
  }
  EXPECT_GT(largest, 1e-6);
  for (const auto& [name, parameter] : with.task.parameters()) {
    if (!name.starts_with("discriminator.")) continue;
    const at::Tensor half = 0.5 * discriminator->named_parameters()[name.substr(14)].grad();
    EXPECT_LT((parameter.grad() - half).abs().max().item<double>(), 1e-10);
  }
}

TEST(Answering, StepsAreRecordedWhereTheHostHasNoPartInThem) {
  const auto alike = [](AnswerKind answer, const AnsweringConfig& objective) {
    return make_task(answer, nullptr, objective, /*captions=*/true).launches_alike();
  };
  EXPECT_TRUE(alike(AnswerKind::kClasses, {.modality_dropout = 0.5, .consistency = 1}));
  EXPECT_TRUE(alike(AnswerKind::kGenerated, {}));
  EXPECT_TRUE(alike(AnswerKind::kClasses, {.reversal = 1}));
  EXPECT_FALSE(alike(AnswerKind::kGenerated, {.consistency = 1}));
}

TEST(Answering, ModalityDropoutLeavesOneOfTwo) {
  Trial with({.modality_dropout = 1}), without({});
  int64_t blind = 0, deaf = 0;
  const torch::NoGradGuard no_grad;
  for (const MicroBatch& part : split(make_captioned_batch(), 1)) {
    if (part.batch.label_B.item<int64_t>() < 0) continue;
    ForwardContext context = part.forward;
    const PromptedTokens text = asked_texts(part.batch).question;
    const auto loss_of = [&](const Percept& seen) {
      return at::cross_entropy_loss(with.model->class_logits(seen, text, context), part.batch.label_B)
          .item<double>();
    };
    const Percept percept = perceive(with.model, part.batch, context);
    const double loss = with.loss(part).item<double>();
    blind += std::abs(loss - loss_of({.image = {}, .caption = percept.caption})) < 1e-12;
    deaf += std::abs(loss - loss_of({.image = percept.image})) < 1e-12;
    EXPECT_GT(std::abs(loss - without.loss(part).item<double>()), 1e-9);
  }
  EXPECT_EQ(blind + deaf, 7);
  EXPECT_GT(blind, 0);
  EXPECT_GT(deaf, 0);
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
}  // namespace fathom::answering_test
