// That the loss is of hidden tokens alone, the same however a step is split, and that evaluation repeats
// itself.
#include "train/task/masked_token.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "evaluate/masked_token.h"
#include "models/model_folder.h"
#include "step_fixture.h"
#include "temporary_folder.h"
#include "tensor/random_keys.h"

namespace fathom::masked_token_test {
namespace {

using testing::split;
using testing::StepResult;

constexpr int64_t kRows = 6, kTokens = 20, kVocab = 30, kMask = 29;

LanguageModelConfig small_text() {
  return {.vocab_size = kVocab,
          .dim = 16,
          .layers = 2,
          .heads = 2,
          .max_positions = kTokens,
          .attention = AttentionKind::kBidirectional};
}

class MaskedToken : public ::testing::Test {
 protected:
  MaskedToken() {
    init_parameters(*model_, 1);
    model_->to(at::kDouble);
    batch_.index_B = torch::arange(kRows);
    batch_.tokens_BT =
        torch::arange(kRows * kTokens).mul(17).remainder(101).remainder(28).view({kRows, kTokens});
    batch_.length_B = torch::tensor({20, 20, 7, 13, 1, 20}, at::kLong);
    key_B_ = make_sample_keys(batch_.index_B, 5, 6);
  }
  MaskedTokenTask task() const {
    return MaskedTokenTask(
        {.model = model_, .config = config_, .vocabulary = vocabulary_, .num_tokens = kTokens});
  }
  StepResult run(MaskedTokenTask task, int64_t size = kRows) const {
    return testing::run_step(task, split(batch_, size));
  }

  TokenMaskConfig config_{.ratio = 0.3};
  MaskVocabulary vocabulary_{.size = kVocab, .mask = kMask, .marks = {kMask, 28}};
  LanguageModel model_{small_text()};
  Batch batch_;
  at::Tensor key_B_;
};

TEST_F(MaskedToken, TheLossIsTheMeanOverChosenTokens) {
  const double loss = run(task()).loss;
  const torch::NoGradGuard no_grad;
  const MaskedTokens masked = mask_tokens(key_B_, batch_.tokens_BT, batch_.length_B, config_, vocabulary_);
  const at::Tensor log_p_BTV =
      model_->forward(masked.input_BT, batch_.length_B, {.training = true, .key_B = key_B_}).log_softmax(2);
  double sum = 0;
  int64_t count = 0;
  for (int64_t row = 0; row < kRows; ++row)
    for (int64_t k = 0; k < masked.target_BK.size(1); ++k) {
      const int64_t target = masked.target_BK[row][k].item<int64_t>();
      if (target < 0) continue;
      EXPECT_LT(masked.place_BK[row][k].item<int64_t>(), batch_.length_B[row].item<int64_t>());
      sum -= log_p_BTV[row][masked.place_BK[row][k].item<int64_t>()][target].item<double>();
      ++count;
    }
  EXPECT_EQ(count, 6 + 6 + 2 + 4 + 1 + 6) << "30 % of each row";
  EXPECT_NEAR(loss, sum / static_cast<double>(count), 1e-10);
}

TEST_F(MaskedToken, WhatIsNotChosenIsNoTarget) {
  // A hidden token that is shown as the mask leaves no other trace than as a target.
  config_.mask_share = 1;
  config_.random_share = 0;
  const double before = run(task()).loss;
  const MaskedTokens masked = mask_tokens(key_B_, batch_.tokens_BT, batch_.length_B, config_, vocabulary_);
  const int64_t place = masked.place_BK[0][0].item<int64_t>(),
                target = masked.target_BK[0][0].item<int64_t>();
  const torch::NoGradGuard no_grad;
  const at::Tensor log_p_V =
      model_->forward(masked.input_BT, batch_.length_B, {.training = true, .key_B = key_B_})[0][place]
          .log_softmax(0);
  const int64_t other = (target + 1) % 28;
  batch_.tokens_BT[0][place] = other;
  const double expected = before + (log_p_V[target] - log_p_V[other]).item<double>() / 25;
  const torch::AutoGradMode with_gradients(true);
  EXPECT_NEAR(run(task()).loss, expected, 1e-10);
}

TEST_F(MaskedToken, AccumulationIsTheWholeBatch) {
  const StepResult whole = run(task());
  for (const auto& [name, gradient] : whole.gradients)
    EXPECT_GT(gradient.abs().max().item<double>(), 0) << name;
  for (const int64_t size : {1, 2, 3}) testing::expect_equal(run(task(), size), whole, 1e-10);
}

TEST_F(MaskedToken, FullRowsNeedNoLengths) {
  batch_.length_B.fill_(kTokens);
  const MaskedTokenTask full(
      {.model = model_, .config = config_, .vocabulary = vocabulary_, .padded = false});
  EXPECT_NEAR(run(full).loss, run(task()).loss, 1e-10);
}

/// The rows of a batch as a data set.
class RowSource : public SampleSource {
 public:
  explicit RowSource(Batch batch) : batch_(std::move(batch)) {}
  int64_t size() const override { return batch_.size(); }
  Sample load(int64_t index, int64_t) const override {
    Sample sample{.index = index};
    std::vector<int32_t>& row = sample.token_rows.emplace_back();
    for (int64_t t = 0; t < batch_.length_B[index].item<int64_t>(); ++t)
      row.push_back(static_cast<int32_t>(batch_.tokens_BT[index][t].item<int64_t>()));
    return sample;
  }

 private:
  Batch batch_;
};

TEST_F(MaskedToken, EvaluationRepeatsItself) {
  const auto source = std::make_shared<const RowSource>(batch_);
  const auto measure = [&](int64_t batch_size) {
    return evaluate_masked_tokens(model_, source, config_, vocabulary_,
                                  {.batch_size = batch_size, .workers = 0});
  };
  const MaskedTokenReport whole = measure(kRows);
  EXPECT_EQ(whole.tokens, 25);
  EXPECT_EQ(measure(kRows).nats, whole.nats) << "the masks are fixed";
  EXPECT_NEAR(measure(2).nats, whole.nats, 1e-4) << "and do not depend on batches";
  EXPECT_EQ(measure(2).correct, whole.correct);

  const torch::NoGradGuard no_grad;
  const at::Tensor key_B = make_sample_keys(batch_.index_B, 0, 0);
  const MaskedTokens masked = mask_tokens(key_B, batch_.tokens_BT, batch_.length_B, config_, vocabulary_);
  const at::Tensor log_p_BTV = model_->forward(masked.input_BT, batch_.length_B).log_softmax(2);
  double nats = 0;
  int64_t correct = 0;
  for (int64_t row = 0; row < kRows; ++row)
    for (int64_t k = 0; k < masked.target_BK.size(1); ++k) {
      const int64_t target = masked.target_BK[row][k].item<int64_t>();
      if (target < 0) continue;
      const at::Tensor log_p_V = log_p_BTV[row][masked.place_BK[row][k].item<int64_t>()];
      nats -= log_p_V[target].item<double>();
      correct += log_p_V.argmax().item<int64_t>() == target;
    }
  EXPECT_NEAR(whole.nats, nats, 1e-4);
  EXPECT_EQ(whole.correct, correct);
  EXPECT_NEAR(whole.nats_per_token(), nats / 25, 1e-5);
  EXPECT_NEAR(whole.accuracy(), 4.0 * static_cast<double>(correct), 1e-9);
}

TEST_F(MaskedToken, CountsTheHeadWhereItIsComputed) {
  const LanguageModelConfig model = small_text();
  const double all = 3.0 * static_cast<double>(forward_flops(model, 1, kTokens));
  EXPECT_EQ(masked_token_flops(model, config_, kTokens), all - 3.0 * 2 * (kTokens - 6) * model.dim * kVocab);
  EXPECT_EQ(task().flops_per_sample(), masked_token_flops(model, config_, kTokens));
}

TEST_F(MaskedToken, LeavesALanguageModel) {
  const TemporaryFolder folder;
  model_->to(at::kFloat);
  task().save_model(folder / "model", Json::object());
  const LoadedModel loaded = load_model_folder(folder / "model");
  ASSERT_EQ(loaded.kind, ModelKind::kLanguage);
  EXPECT_EQ(loaded.language->config().attention, AttentionKind::kBidirectional);
  const auto expected = model_->named_parameters();
  for (const auto& entry : loaded.language->named_parameters())
    EXPECT_TRUE(at::equal(entry.value(), *expected.find(entry.key()))) << entry.key();
}

}  // namespace
}  // namespace fathom::masked_token_test
