#include "batch/question_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "base/file.h"
#include "batch/collate.h"
#include "data/image/encode.h"
#include "data/tokenizer/trainer.h"
#include "temporary_folder.h"

namespace fathom {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<const Tokenizer> make_tokenizer() {
  TokenizerTrainerConfig config;
  config.vocab_size = 280;
  config.special_tokens = {"<|endoftext|>", "<|mask|>"};
  const std::vector<std::string_view> texts = {"what is red? a cup, a red cup"};
  return std::make_shared<const Tokenizer>(train_tokenizer(texts, config));
}

class QuestionSourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const Image image{.height = 8, .width = 8, .pixels = std::vector<uint8_t>(192, 90)};
    write_file_atomically(folder_ / "0.png", encode_png(image));
  }
  std::shared_ptr<const Dataset> rows(const std::string& text) {
    write_file_atomically(folder_ / "qa.jsonl", text);
    return open_dataset({.path = folder_.path()});
  }
  QuestionSource::Setup setup(const std::string& text) {
    const auto dataset = rows(text);
    return {.dataset = dataset,
            .images = std::make_shared<const ImageViews>(ImageViewConfig{.size = 8}, Phase::kEvaluate),
            .text = TextEncoding(tokenizer_, {}),
            .answers = answer_names(*dataset)};
  }
  std::string decode(const std::vector<int32_t>& tokens) const { return tokenizer_->decode(tokens); }

  const std::shared_ptr<const Tokenizer> tokenizer_ = make_tokenizer();
  const TemporaryFolder folder_;
};

constexpr const char* kRows =
    "{\"image\":\"0.png\",\"question\":\"what is red?\",\"answers\":[\"cup\",\"ball\",\"cup\"]}\n"
    "{\"image\":\"0.png\",\"question\":\"is it a cup?\",\"answer\":\"yes\"}\n";

TEST_F(QuestionSourceTest, AnswersAreSetsAndTheirNamesAreSorted) {
  const auto dataset = rows(kRows);
  EXPECT_EQ(answer_text(dataset->record(0)), "ball, cup");
  EXPECT_THAT(answer_names(*dataset), ElementsAre("ball, cup", "yes"));
}

TEST_F(QuestionSourceTest, ClassesHaveTheQuestionAlone) {
  const QuestionSource source(setup(kRows));
  const Sample sample = source.load(1, 0);
  EXPECT_EQ(sample.label, 1);
  EXPECT_EQ(decode(sample.token_rows[0]), "is it a cup?<|endoftext|>");
  EXPECT_EQ(sample.prompt_length, static_cast<int64_t>(sample.token_rows[0].size()));
  EXPECT_EQ(sample.images.size(), 1);
}

TEST_F(QuestionSourceTest, ACaptionOfThePictureIsASecondRow) {
  auto parts = setup(kRows);
  parts.with_captions = true;
  try {
    const QuestionSource source(parts);
    ADD_FAILURE() << "there are no captions";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("qa.jsonl:1: no caption"));
  }
  write_file_atomically(folder_ / "captions.jsonl",
                        "{\"image\":\"0.png\",\"captions\":[\"a cup\",\"a red cup\"]}\n");
  parts.config.captions = folder_ / "captions.jsonl";
  parts.phase = Phase::kTrain;
  const QuestionSource source(parts);
  std::set<std::string> captions;
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    const Sample sample = source.load(0, epoch);
    ASSERT_EQ(sample.token_rows.size(), 2);
    EXPECT_EQ(decode(sample.token_rows[0]), "what is red?<|endoftext|>");
    EXPECT_EQ(sample.prompt_length, static_cast<int64_t>(sample.token_rows[0].size()));
    captions.insert(decode(sample.token_rows[1]));
  }
  EXPECT_THAT(captions, ElementsAre("a cup<|endoftext|>", "a red cup<|endoftext|>"));
  parts.phase = Phase::kEvaluate;
  EXPECT_EQ(decode(QuestionSource(parts).load(0, 3).token_rows[1]), "a cup<|endoftext|>");
}

TEST_F(QuestionSourceTest, AnAnswerThatIsNoClassHasNoLabel) {
  auto parts = setup(kRows);
  parts.answers = {"yes"};
  EXPECT_EQ(QuestionSource(parts).load(0, 0).label, -1);
}

TEST_F(QuestionSourceTest, AnswersFollowForAModelThatGenerates) {
  auto parts = setup(kRows);
  parts.answers_follow = true;
  const QuestionSource source(parts);
  const Sample sample = source.load(0, 0);
  EXPECT_EQ(decode(sample.token_rows[0]), "what is red?<|endoftext|>ball, cup<|endoftext|>");
  const std::vector<int32_t> prompt(sample.token_rows[0].begin(),
                                    sample.token_rows[0].begin() + sample.prompt_length);
  EXPECT_EQ(decode(prompt), "what is red?<|endoftext|>");
  parts.config.max_answer_tokens = 2;
  EXPECT_EQ(QuestionSource(parts).load(0, 0).token_rows[0].size(), prompt.size() + 2);
  const std::vector<Sample> samples = {source.load(0, 0), source.load(1, 0)};
  const Batch batch = collate(samples);
  EXPECT_EQ(batch.prompt_length_B[0].item<int64_t>(), sample.prompt_length);
  EXPECT_EQ(slice_batch(batch, 1, 1).prompt_length_B.item<int64_t>(), samples[1].prompt_length);
}

TEST_F(QuestionSourceTest, PicturesWithCaptionsAloneAreDescribed) {
  auto parts = setup("{\"image\":\"0.png\",\"captions\":[\"a cup\",\"a red cup\"]}\n");
  parts.answers_follow = true;
  const QuestionSource source(parts);
  std::set<std::string> seen;
  for (int64_t epoch = 0; epoch < 20; ++epoch) seen.insert(decode(source.load(0, epoch).token_rows[0]));
  EXPECT_THAT(seen, ElementsAre("describe the picture<|endoftext|>a cup<|endoftext|>",
                                "describe the picture<|endoftext|>a red cup<|endoftext|>"));
  parts.phase = Phase::kEvaluate;
  EXPECT_EQ(decode(QuestionSource(parts).load(0, 3).token_rows[0]),
            "describe the picture<|endoftext|>a cup<|endoftext|>");
}

TEST_F(QuestionSourceTest, SaysWhichRowLacksWhat) {
  const auto error = [&](const std::string& row) {
    try {
      QuestionSource{setup(row)};
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(error("{\"image\":\"0.png\",\"question\":\"why?\"}\n"), HasSubstr("qa.jsonl:1: no answer"));
  EXPECT_THAT(error("{\"image\":\"0.png\",\"label\":\"x\"}\n"), HasSubstr("qa.jsonl:1: no question"));
  EXPECT_THAT(error("{\"question\":\"why?\",\"answer\":\"so\"}\n"), HasSubstr("qa.jsonl:1: no image"));
}

}  // namespace
}  // namespace fathom
