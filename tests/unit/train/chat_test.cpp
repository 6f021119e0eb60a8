// Learning answers: packed rows are worth what padded ones are, and only answers count.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "../models/model_fixture.h"
#include "base/file.h"
#include "batch/chat_source.h"
#include "batch/collate.h"
#include "data/tokenizer/trainer.h"
#include "distributed/collective.h"
#include "evaluate/chat.h"
#include "train/task/language.h"

namespace fathom::chat_test {
namespace {

using namespace testing;

class ChatTraining : public ::testing::Test {
 protected:
  ChatTraining() {
    TokenizerTrainerConfig config;
    config.vocab_size = 280;
    for (const std::string& token : chat_tokens(ChatTemplateKind::kChatMl))
      config.special_tokens.push_back(token);
    const std::vector<std::string_view> texts = {"some text of some words, and an answer to it"};
    tokenizer_ = std::make_shared<const Tokenizer>(train_tokenizer(texts, config));
    std::string lines;
    for (const char* answer : {"yes", "no, never", "some words of an answer", "42", "text"})
      lines += std::string(R"({"prompt": "what of it?", "response": ")") + answer + "\"}\n";
    write_file_atomically(folder_ / "c.jsonl", lines);
    LanguageModelConfig shape = small_language();
    shape.vocab_size = tokenizer_->vocab_size();
    shape.max_positions = 96;
    model_ = LanguageModel(shape);
    model_->to(at::kDouble);
    fill_by_formula(model_);
  }

  std::shared_ptr<const ChatSource> source(const ChatConfig& config) const {
    return std::make_shared<const ChatSource>(std::vector<std::string>{folder_ / "c.jsonl"}, config,
                                              tokenizer_, 96);
  }
  /// The loss over all rows as one batch, and its gradient by the embedding.
  std::pair<double, at::Tensor> loss_of(const ChatConfig& config) {
    const auto rows = source(config);
    std::vector<Sample> samples;
    for (int64_t i = 0; i < rows->size(); ++i) samples.push_back(rows->load(i, 0));
    LanguageTask task({.model = model_});
    MicroBatch micro_batch{.batch = collate(samples)};
    if (!separates_) micro_batch.batch.segment_BT = at::Tensor();
    const auto collective = make_solo_collective();
    const StepContext step{.collective = *collective, .expect_last_backward = [] {}};
    model_->zero_grad();
    task.before_step({&micro_batch, 1}, step);
    const at::Tensor loss = task.forward_backward({&micro_batch, 1}, step);
    return {loss.item<double>(), model_->named_parameters()["embedding"].grad().clone()};
  }

  TemporaryFolder folder_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  LanguageModel model_{nullptr};
  bool separates_ = true;
};

TEST_F(ChatTraining, PackedRowsAreWorthWhatPaddedOnesAre) {
  const ChatConfig packed{.layout = ChatLayout::kPack}, padded{.layout = ChatLayout::kPad};
  ASSERT_LT(source(packed)->size(), source(padded)->size());
  const auto [packed_loss, packed_gradient] = loss_of(packed);
  const auto [padded_loss, padded_gradient] = loss_of(padded);
  // Rotary angles are float32, and a packed conversation stands at other positions.
  EXPECT_NEAR(packed_loss, padded_loss, 1e-7);
  EXPECT_LT((packed_gradient - padded_gradient).abs().max().item<double>(), 1e-6);
  separates_ = false;
  EXPECT_GT(std::abs(loss_of(packed).first - padded_loss), 1e-3) << "conversations that see each other";
}

TEST_F(ChatTraining, OnlyAnswersCount) {
  const double answers = loss_of({.layout = ChatLayout::kPad}).first;
  const double all = loss_of({.layout = ChatLayout::kPad, .answers_only = false}).first;
  EXPECT_GT(std::abs(answers - all), 1e-3);
  // By hand: −ln p of the answers' tokens, one conversation after the other.
  const auto rows = source({.layout = ChatLayout::kPad});
  const torch::NoGradGuard no_grad;
  double nats = 0;
  int64_t tokens = 0;
  for (int64_t i = 0; i < rows->size(); ++i) {
    const Sample sample = rows->load(i, 0);
    const auto row = sample.token_rows[0];
    const auto tokens_1T = torch::tensor(std::vector<int64_t>(row.begin(), row.end())).unsqueeze(0);
    const auto log_TV = at::log_softmax(model_(tokens_1T)[0], -1);
    for (size_t t = 0; t < sample.targets.size(); ++t) {
      if (sample.targets[t] < 0) continue;
      nats -= log_TV[static_cast<int64_t>(t)][sample.targets[t]].item<double>();
      ++tokens;
    }
  }
  EXPECT_EQ(tokens, rows->num_targets());
  EXPECT_NEAR(answers, nats / static_cast<double>(tokens), 1e-10);
  const ChatReport report = evaluate_chat(model_, source({.layout = ChatLayout::kPack}), 0, {.workers = 0});
  EXPECT_EQ(report.tokens, tokens);
  EXPECT_NEAR(report.nats_per_token(), answers, 1e-5);
}

}  // namespace
}  // namespace fathom::chat_test
