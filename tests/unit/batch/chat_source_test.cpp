// Conversations as rows of tokens with targets.
#include "batch/chat_source.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "base/file.h"
#include "batch/collate.h"
#include "data/tokenizer/trainer.h"
#include "temporary_folder.h"

namespace fathom::chat_source_test {
namespace {

using ::testing::HasSubstr;

class ChatSourceTest : public ::testing::Test {
 protected:
  ChatSourceTest() {
    TokenizerTrainerConfig config;
    config.vocab_size = 270;
    for (const std::string& token : chat_tokens(ChatTemplateKind::kChatMl))
      config.special_tokens.push_back(token);
    const std::vector<std::string_view> texts = {"some text of some words"};
    tokenizer_ = std::make_shared<const Tokenizer>(train_tokenizer(texts, config));
    std::string lines;
    for (const char* answer : {"a", "bb", "ccc", "dddddddd"})
      lines += std::string(R"({"prompt": "q", "response": ")") + answer + "\"}\n";
    write_file_atomically(folder_ / "c.jsonl", lines);
  }
  ChatSource open(int64_t num_tokens, const ChatConfig& config = {}) const {
    return ChatSource({folder_ / "c.jsonl"}, config, tokenizer_, num_tokens);
  }
  std::string text(const std::vector<int32_t>& tokens) const { return tokenizer_->decode(tokens); }

  TemporaryFolder folder_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(ChatSourceTest, PaddedRowsLearnTheirAnswer) {
  const ChatSource source = open(64, {.layout = ChatLayout::kPad});
  ASSERT_EQ(source.size(), 4);
  const Sample sample = source.load(1, 0);
  const auto& tokens = sample.token_rows.at(0);
  ASSERT_EQ(sample.targets.size(), tokens.size() - 1);
  std::vector<int32_t> learned;
  for (size_t i = 0; i < sample.targets.size(); ++i) {
    if (sample.targets[i] < 0) continue;
    EXPECT_EQ(sample.targets[i], tokens[i + 1]) << "a target is the token that follows";
    learned.push_back(sample.targets[i]);
  }
  EXPECT_EQ(text(learned), "bb<|im_end|>");
}

TEST_F(ChatSourceTest, AllIsLearnedOnRequest) {
  const Sample sample = open(64, {.layout = ChatLayout::kPad, .answers_only = false}).load(1, 0);
  const auto& tokens = sample.token_rows.at(0);
  EXPECT_EQ(sample.targets, std::vector<int32_t>(tokens.begin() + 1, tokens.end()));
}

TEST_F(ChatSourceTest, PackedRowsHoldEveryConversationOnce) {
  const ChatSource padded = open(64, {.layout = ChatLayout::kPad}), packed = open(64);
  EXPECT_LT(packed.size(), padded.size());
  std::multiset<std::string> conversations;
  for (int64_t i = 0; i < packed.size(); ++i) {
    const Sample sample = packed.load(i, 0);
    const auto& tokens = sample.token_rows.at(0);
    EXPECT_LE(tokens.size(), 65u);
    ASSERT_EQ(sample.targets.size(), tokens.size() - 1);
    ASSERT_EQ(sample.segments.size(), tokens.size() - 1);
    std::vector<int32_t> one;
    for (size_t t = 0; t < tokens.size(); ++t) {
      one.push_back(tokens[t]);
      const bool last = t + 1 == tokens.size() ||
                        (t + 1 < sample.segments.size() && sample.segments[t + 1] != sample.segments[t]);
      if (t + 1 < tokens.size() && last) {
        EXPECT_EQ(sample.targets[t], -1) << "the next conversation is not foretold";
      }
      if (last) conversations.insert(text(std::exchange(one, {})));
    }
  }
  std::multiset<std::string> expected;
  for (int64_t i = 0; i < padded.size(); ++i) expected.insert(text(padded.load(i, 0).token_rows.at(0)));
  EXPECT_EQ(conversations, expected);
  EXPECT_EQ(packed.num_targets(), padded.num_targets());
}

TEST_F(ChatSourceTest, WhatIsTooLongIsCutOrLeftOut) {
  const auto length =
      static_cast<int64_t>(open(64, {.layout = ChatLayout::kPad}).load(0, 0).token_rows.at(0).size());
  const ChatSource source = open(length - 1, {.layout = ChatLayout::kPad});
  EXPECT_EQ(source.size(), 4);
  EXPECT_EQ(source.num_cut(), 3);
  EXPECT_EQ(static_cast<int64_t>(source.load(3, 0).token_rows.at(0).size()), length);
  try {
    open(4);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no answer begins within the model's 4 tokens"));
  }
}

TEST_F(ChatSourceTest, RowsAreStackedWithTheirTargets) {
  const ChatSource source = open(64, {.layout = ChatLayout::kPad});
  const std::vector<Sample> samples = {source.load(0, 0), source.load(3, 0)};
  const Batch batch = collate(samples, {.padding_id = 1});
  EXPECT_EQ(batch.target_BT.size(1), batch.tokens_BT.size(1) - 1);
  EXPECT_EQ(batch.target_BT[0][-1].item<int64_t>(), -1) << "padding is no target";
  EXPECT_EQ(batch.segment_BT[0][-1].item<int64_t>(), -1);
  EXPECT_EQ(batch.target_BT.ge(0).sum().item<int64_t>(), 2 + 9);
  EXPECT_TRUE(at::equal(slice_batch(batch, 1, 1).target_BT, batch.target_BT.slice(0, 1)));
}

}  // namespace
}  // namespace fathom::chat_source_test
