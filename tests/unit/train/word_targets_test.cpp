// Pictures that name the words of their captions, against the definition.
#include "train/task/word_targets.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <set>

#include "base/error.h"
#include "contrastive_fixture.h"

namespace fathom::testing::word_targets_test {
namespace {

constexpr int64_t kVocab = 50, kPadding = 0, kMark = 7;

/// Twelve pairs with two views and two captions of unequal length each.
Batch ragged_batch() {
  Batch batch = make_batch();
  torch::manual_seed(6);
  batch.image_BCHW = torch::randn({24, 3, 16, 16}, at::kDouble);
  batch.tokens_BT = torch::randint(0, kVocab, {24, 10}, at::kLong);
  batch.tokens_BT.slice(0, 0, 20).select(1, 0).fill_(11);  // a word of most samples
  batch.length_B = torch::randint(1, 11, {24}, at::kLong);
  return batch;
}

/// The ids of each sample, one token after another.
std::vector<std::set<int64_t>> words_by_hand(const Batch& batch) {
  std::vector<std::set<int64_t>> words(12);
  for (int64_t m = 0; m < 24; ++m)
    for (int64_t t = 0; t < batch.length_B[m].item<int64_t>(); ++t)
      words[static_cast<size_t>(m / 2)].insert(batch.tokens_BT[m][t].item<int64_t>());
  for (std::set<int64_t>& of_sample : words)
    for (const int64_t mark : {kPadding, kMark}) of_sample.erase(mark);
  return words;
}

/// What has been seen so far.
struct Counts {
  std::map<int64_t, int> holding;
  int samples = 0;
  void add(const std::vector<std::set<int64_t>>& words) {
    samples += static_cast<int>(words.size());
    for (const std::set<int64_t>& of_sample : words)
      for (const int64_t id : of_sample) ++holding[id];
  }
  double weight(int64_t id) const { return std::log((1.0 + samples) / (1.0 + holding.at(id))); }
};

/// Mean cross-entropy over views of the sum-to-one weights of each sample's words; with its gradient.
at::Tensor loss_by_hand(const at::Tensor& logits_VW, const std::vector<std::set<int64_t>>& words,
                        const Counts& counts) {
  const int64_t views = logits_VW.size(0) / static_cast<int64_t>(words.size());
  at::Tensor sum = at::zeros({}, at::kDouble);
  for (int64_t v = 0; v < logits_VW.size(0); ++v) {
    const std::set<int64_t>& of_sample = words[static_cast<size_t>(v / views)];
    const at::Tensor normaliser = logits_VW[v].exp().sum().log();
    double all = 0;
    for (const int64_t id : of_sample) all += counts.weight(id);
    for (const int64_t id : of_sample) sum = sum - counts.weight(id) / all * (logits_VW[v][id] - normaliser);
  }
  return sum / static_cast<double>(logits_VW.size(0));
}

ContrastiveTask make_task(double weight) {
  const ContrastiveConfig config{.word_weight = weight};
  return ContrastiveTask({.model = make_model(config),
                          .config = config,
                          .captions_per_image = 2,
                          .views_per_image = 2,
                          .seed = 6,
                          .text_marks = {kPadding, kMark, 1 << 20}});
}

TEST(WordTargets, HoldEachWordOnceAndNoMarks) {
  const Batch batch = ragged_batch();
  const WordTargets targets({.vocab_size = kVocab, .marks = {kPadding, kMark}});
  const at::Tensor word_BW = targets.words(batch);
  ASSERT_EQ(word_BW.sizes(), at::IntArrayRef({12, kVocab}));
  const auto expected = words_by_hand(batch);
  for (int64_t b = 0; b < 12; ++b)
    for (int64_t w = 0; w < kVocab; ++w)
      EXPECT_EQ(word_BW[b][w].item<bool>(), expected[static_cast<size_t>(b)].contains(w)) << b << " " << w;
}

TEST(WordTargets, AreNoneOfSamplesThatLackPictureOrCaptions) {
  Batch batch = ragged_batch();
  const WordTargets targets({.vocab_size = kVocab, .marks = {}});
  batch.has_image_B = at::arange(12).ne(3);
  batch.has_text_B = at::arange(12).ne(5);
  const at::Tensor count_B = targets.words(batch).sum(1);
  for (int64_t b = 0; b < 12; ++b) EXPECT_EQ(count_B[b].item<int64_t>() == 0, b == 3 || b == 5) << b;
  batch.image_BCHW = at::Tensor();
  EXPECT_FALSE(targets.words(batch).any().item<bool>());
  batch = ragged_batch();
  batch.tokens_BT = batch.length_B = at::Tensor();
  EXPECT_EQ(targets.words(batch).sizes(), at::IntArrayRef({12, kVocab}));
  EXPECT_FALSE(targets.words(batch).any().item<bool>());
}

TEST(WordTargets, WhatEverySampleHoldsSaysNothing) {
  Batch batch = ragged_batch();
  batch.tokens_BT.fill_(9);
  WordTargets targets({.vocab_size = kVocab});
  const auto collective = make_solo_collective();
  targets.count(split(batch, 12), *collective);
  const at::Tensor loss_B = targets.loss(torch::randn({12, kVocab}), targets.words(batch));
  EXPECT_EQ(loss_B.abs().max().item<double>(), 0);
  EXPECT_EQ(loss_B.scalar_type(), at::kFloat);
}

TEST(WordTargets, AStateOfAnotherVocabularyIsRefused) {
  WordTargets targets({.vocab_size = kVocab});
  EXPECT_THROW(targets.load_state(WordTargets({.vocab_size = kVocab + 1}).state()), Error);
  targets.load_state({});
}

TEST(WordPrediction, AddsItsWeightTimesTheDefinitionWithRunningCounts) {
  ContrastiveTask with = make_task(0.6), without = make_task(0);
  Batch batch = ragged_batch();
  Counts counts;
  for (int i = 0; i < 2; ++i) {  // the second step knows of the first
    const auto parameters = named(with);
    for (const auto& [name, parameter] : parameters) parameter.mutable_grad() = at::Tensor();
    const double added = step(with, {{batch, {}}}) - step(without, {{batch, {}}});
    counts.add(words_by_hand(batch));
    const at::Tensor pooled_VD = make_model({})->vision()->forward(batch.image_BCHW, {}).detach();
    const at::Tensor weight_WD = parameters.at("word_head.weight").detach().clone().requires_grad_(),
                     bias_W = parameters.at("word_head.bias").detach().clone().requires_grad_();
    const at::Tensor expected =
        loss_by_hand(at::addmm(bias_W, pooled_VD, weight_WD.t()), words_by_hand(batch), counts);
    EXPECT_GT(expected.item<double>(), 0.1);
    EXPECT_NEAR(added, 0.6 * expected.item<double>(), 1e-9);
    (0.6 * expected).backward();
    EXPECT_TRUE(at::allclose(parameters.at("word_head.weight").grad(), weight_WD.grad(), 1e-9, 1e-12));
    EXPECT_TRUE(at::allclose(parameters.at("word_head.bias").grad(), bias_W.grad(), 1e-9, 1e-12));
    batch.tokens_BT = (batch.tokens_BT + 5).remainder(30);
  }
}

TEST(WordPrediction, TeachesTheVisionTowerAndNotTheText) {
  ContrastiveTask with = make_task(0.6), without = make_task(0);
  step(with, {{ragged_batch(), {}}});
  step(without, {{ragged_batch(), {}}});
  expect_vision_alone_is_taught(with, without, "word_head.");
}

TEST(WordPrediction, AccumulationEqualsTheWholeBatch) {
  const auto run = [](int64_t size) {
    ContrastiveTask task = make_task(0.6);
    StepResult result;
    for (int i = 0; i < 2; ++i) result.loss = step(task, split(ragged_batch(), size));
    for (const auto& [name, parameter] : task.parameters())
      if (parameter.grad().defined()) result.gradients[name] = parameter.grad();
    EXPECT_EQ(task.state().begin()->second[kVocab].item<int64_t>(), 24) << "each sample once a step";
    return result;
  };
  const StepResult whole = run(12);
  for (const int64_t size : {3, 5}) {
    const StepResult parts = run(size);
    EXPECT_NEAR(parts.loss, whole.loss, 1e-10);
    ASSERT_EQ(parts.gradients.size(), whole.gradients.size());
    for (const auto& [name, gradient] : whole.gradients)
      EXPECT_TRUE(at::allclose(gradient, parts.gradients.at(name), 1e-6, 1e-9)) << name;
  }
}

TEST(WordPrediction, GoesOnWithItsCounts) {
  Batch other = ragged_batch();
  other.tokens_BT = (other.tokens_BT + 5).remainder(30);
  ContrastiveTask whole = make_task(0.6), resumed = make_task(0.6), anew = make_task(0.6);
  step(whole, {{ragged_batch(), {}}});
  TensorMap state;
  for (const auto& [name, tensor] : whole.state()) state[name] = tensor.clone();
  resumed.load_state(state);
  const double expected = step(whole, {{other, {}}});
  EXPECT_EQ(step(resumed, {{other, {}}}), expected);
  EXPECT_GT(std::abs(step(anew, {{other, {}}}) - expected), 1e-6);
}

/// Six kinds of pictures, each of a colour, and a word for each among words of all.
TEST(WordPrediction, LearnsTheWordsOfPictures) {
  ContrastiveTask task = make_task(1);
  Batch batch = ragged_batch();
  for (int64_t b = 0; b < 12; ++b) {
    batch.image_BCHW.slice(0, 2 * b, 2 * b + 2).select(1, b % 3).add_(b % 2 == 0 ? 3 : -3);
    batch.tokens_BT.slice(0, 2 * b, 2 * b + 2).copy_(torch::randint(40, kVocab, {2, 10}, at::kLong));
    batch.tokens_BT.slice(0, 2 * b, 2 * b + 2).select(1, 0).fill_(20 + b % 6);
  }
  const auto parameters = named(task);
  std::vector<at::Tensor> learned;
  for (const auto& [name, parameter] : parameters) learned.push_back(parameter);
  torch::optim::Adam optimizer(learned, torch::optim::AdamOptions(1e-2));
  for (int i = 0; i < 100; ++i) {
    optimizer.zero_grad();
    step(task, {{batch, {}}});
    optimizer.step();
  }
  const torch::NoGradGuard no_grad;
  DualTower model = make_model({});
  for (auto& entry : model->named_parameters()) entry.value().copy_(parameters.at(entry.key()));
  const at::Tensor logits_VW =
      at::addmm(parameters.at("word_head.bias"), model->vision()->forward(batch.image_BCHW, {}),
                parameters.at("word_head.weight").t());
  const at::Tensor named_V = logits_VW.slice(1, 20, 26).argmax(1);
  const at::Tensor kind_V = at::arange(12).remainder(6).repeat_interleave(2);
  EXPECT_GT(named_V.eq(kind_V).sum().item<int64_t>(), 20) << "of 24";
}

}  // namespace
}  // namespace fathom::testing::word_targets_test
