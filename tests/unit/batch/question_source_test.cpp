#include "batch/question_source.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <tuple>

#include "base/error.h"
#include "base/file.h"
#include "batch/collate.h"
#include "data/image/encode.h"
#include "data/tokenizer/trainer.h"
#include "temporary_folder.h"

namespace fathom::question_source_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<const Tokenizer> question_tokenizer() {
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

  const std::shared_ptr<const Tokenizer> tokenizer_ = question_tokenizer();
  const TemporaryFolder folder_;
};

constexpr const char* kQuestionRows =
    "{\"image\":\"0.png\",\"question\":\"what is red?\",\"answers\":[\"cup\",\"ball\",\"cup\"]}\n"
    "{\"image\":\"0.png\",\"question\":\"is it a cup?\",\"answer\":\"yes\"}\n";

TEST_F(QuestionSourceTest, AnswersAreSetsAndTheirNamesAreSorted) {
  const auto dataset = rows(kQuestionRows);
  EXPECT_EQ(answer_text(dataset->record(0)), "ball, cup");
  EXPECT_THAT(answer_names(*dataset), ElementsAre("ball, cup", "yes"));
}

TEST_F(QuestionSourceTest, ClassesHaveTheQuestionAlone) {
  const QuestionSource source(setup(kQuestionRows));
  const Sample sample = source.load(1, 0);
  EXPECT_EQ(sample.labels.at(0), 1);
  EXPECT_EQ(decode(sample.token_rows[0]), "is it a cup?<|endoftext|>");
  EXPECT_EQ(sample.prompt_lengths.at(0), static_cast<int64_t>(sample.token_rows[0].size()));
  EXPECT_EQ(sample.images.size(), 1);
}

TEST_F(QuestionSourceTest, ACaptionAloneAsksNothingOfClasses) {
  auto parts = setup("{\"image\":\"0.png\",\"captions\":[\"a cup\"]}\n");
  EXPECT_EQ(QuestionSource(parts).load(0, 0).labels.at(0), -1) << "a caption may be generated";
  parts.answers = {"yes"};
  try {
    const QuestionSource source(parts);
    ADD_FAILURE() << "there is no question";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("qa.jsonl:1: no question, and captions are not chosen"));
  }
}

TEST_F(QuestionSourceTest, ACaptionOfThePictureIsASecondRow) {
  auto parts = setup(kQuestionRows);
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
    EXPECT_EQ(sample.prompt_lengths.at(0), static_cast<int64_t>(sample.token_rows[0].size()));
    captions.insert(decode(sample.token_rows[1]));
  }
  EXPECT_THAT(captions, ElementsAre("a cup<|endoftext|>", "a red cup<|endoftext|>"));
  parts.phase = Phase::kEvaluate;
  EXPECT_EQ(decode(QuestionSource(parts).load(0, 3).token_rows[1]), "a cup<|endoftext|>");
}

TEST_F(QuestionSourceTest, CaptionsAreFoundHoweverPathsAreWritten) {
  auto parts = setup(kQuestionRows);
  write_file_atomically(folder_ / "captions.jsonl", "{\"image\":\"0.png\",\"captions\":[\"a cup\"]}\n");
  const auto relative = [](const std::string& path) { return std::filesystem::relative(path).string(); };
  parts.with_captions = true;
  for (const bool questions : {true, false}) {
    parts.dataset = open_dataset({.path = questions ? relative(folder_ / "qa.jsonl") : folder_ / "qa.jsonl"});
    parts.config.captions = questions ? folder_ / "captions.jsonl" : relative(folder_ / "captions.jsonl");
    ASSERT_NE(std::filesystem::path(parts.dataset->record(0).image_path).is_absolute(), questions);
    EXPECT_EQ(decode(QuestionSource(parts).load(0, 0).token_rows.at(1)), "a cup<|endoftext|>");
  }
}

/// Three questions about a picture and one about another, two to a sample.
TEST_F(QuestionSourceTest, QuestionsAboutAPictureShareIt) {
  write_file_atomically(folder_ / "1.png",
                        encode_png({.height = 8, .width = 8, .pixels = std::vector<uint8_t>(192, 9)}));
  auto parts = setup(std::string(kQuestionRows) +
                     "{\"image\":\"1.png\",\"question\":\"a red cup?\",\"answer\":\"no\"}\n"
                     "{\"image\":\"0.png\",\"question\":\"what?\",\"answer\":\"yes\"}\n");
  write_file_atomically(folder_ / "captions.jsonl",
                        "{\"image\":\"0.png\",\"captions\":[\"a cup\"]}\n"
                        "{\"image\":\"1.png\",\"captions\":[\"red\"]}\n");
  parts.config.captions = folder_ / "captions.jsonl";
  parts.with_captions = true;
  parts.answers_follow = true;
  parts.text = TextEncoding(tokenizer_, {.mask_probability = 0.5});
  const QuestionSource alone(parts);
  parts.questions_per_image = 2;
  const QuestionSource source(parts);
  ASSERT_EQ(source.size(), 3);
  EXPECT_NEAR(source.mean_questions(), 4.0 / 3, 1e-12);
  for (const int64_t epoch : {0, 4}) {
    std::vector<Sample> samples, single;
    for (int64_t i = 0; i < 3; ++i) samples.push_back(source.load(i, epoch));
    for (int64_t i = 0; i < 4; ++i) single.push_back(alone.load(i, epoch));
    std::multiset<std::tuple<std::vector<int32_t>, int64_t, int64_t>> rows, expected;
    for (const Sample& sample : samples) {
      EXPECT_EQ(sample.images.size(), 1u);
      ASSERT_EQ(sample.token_rows.size(), 3u);
      ASSERT_EQ(sample.prompt_lengths.size(), 2u);
      for (size_t k = 0; k < 2; ++k)
        if (sample.prompt_lengths[k] > 0)
          rows.emplace(sample.token_rows[k], sample.prompt_lengths[k], sample.labels.at(k));
    }
    for (const Sample& sample : single)
      expected.emplace(sample.token_rows[0], sample.prompt_lengths.at(0), sample.labels.at(0));
    EXPECT_EQ(rows, expected);
    EXPECT_EQ(decode(samples[0].token_rows[2]), "a cup<|endoftext|>");
    const Sample& short_one = samples[2];
    EXPECT_EQ(decode(short_one.token_rows[2]), "red<|endoftext|>");
    EXPECT_EQ(short_one.images[0].pixels[0], 9);
    EXPECT_THAT(short_one.token_rows[1], ElementsAre(source.encoding().padding_id()));
    EXPECT_EQ(short_one.prompt_lengths[1], 0);
    EXPECT_EQ(short_one.labels[1], -1);

    const Batch batch = collate(samples);
    EXPECT_EQ(batch.size(), 3);
    EXPECT_EQ(batch.questions_each(), 2);
    EXPECT_EQ(batch.image_BCHW.size(0), 3);
    EXPECT_EQ(batch.tokens_BT.size(0), 9);
    EXPECT_EQ(batch.label_B.sizes(), (at::IntArrayRef{6}));
    for (int64_t b = 0; b < 3; ++b) {
      const Sample& sample = samples[static_cast<size_t>(b)];
      for (int64_t k = 0; k < 2; ++k) {
        EXPECT_EQ(batch.label_B[2 * b + k].item<int64_t>(), sample.labels[static_cast<size_t>(k)]);
        EXPECT_EQ(batch.prompt_length_B[2 * b + k].item<int64_t>(),
                  sample.prompt_lengths[static_cast<size_t>(k)]);
      }
    }
    const Batch part = slice_batch(batch, 1, 2);
    EXPECT_EQ(part.questions_each(), 2);
    EXPECT_TRUE(at::equal(part.label_B, batch.label_B.slice(0, 2)));
    EXPECT_TRUE(at::equal(part.prompt_length_B, batch.prompt_length_B.slice(0, 2)));
    EXPECT_TRUE(at::equal(part.tokens_BT, batch.tokens_BT.slice(0, 3)));
    samples[1].labels.pop_back();
    EXPECT_THROW(collate(samples), Error);
  }
}

TEST_F(QuestionSourceTest, QuestionsShareAPictureOnlyWhereThereIsOne) {
  auto parts = setup("{\"question\":\"why?\",\"answer\":\"so\"}\n");
  parts.images = nullptr;
  EXPECT_EQ(QuestionSource(parts).size(), 1);
  parts.questions_per_image = 2;
  try {
    const QuestionSource source(parts);
    ADD_FAILURE() << "there is no picture";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_THAT(error.what(),
                HasSubstr("qa.jsonl:1: no image, which data.pairing.questions_per_image needs"));
  }
}

TEST_F(QuestionSourceTest, AnAnswerThatIsNoClassHasNoLabel) {
  auto parts = setup(kQuestionRows);
  parts.answers = {"yes"};
  EXPECT_EQ(QuestionSource(parts).load(0, 0).labels.at(0), -1);
}

TEST_F(QuestionSourceTest, AnswersFollowForAModelThatGenerates) {
  auto parts = setup(kQuestionRows);
  parts.answers_follow = true;
  const QuestionSource source(parts);
  const Sample sample = source.load(0, 0);
  EXPECT_EQ(decode(sample.token_rows[0]), "what is red?<|endoftext|>ball, cup<|endoftext|>");
  const std::vector<int32_t> prompt(sample.token_rows[0].begin(),
                                    sample.token_rows[0].begin() + sample.prompt_lengths.at(0));
  EXPECT_EQ(decode(prompt), "what is red?<|endoftext|>");
  parts.config.max_answer_tokens = 2;
  EXPECT_EQ(QuestionSource(parts).load(0, 0).token_rows[0].size(), prompt.size() + 2);
  const std::vector<Sample> samples = {source.load(0, 0), source.load(1, 0)};
  const Batch batch = collate(samples);
  EXPECT_EQ(batch.prompt_length_B[0].item<int64_t>(), sample.prompt_lengths.at(0));
  EXPECT_EQ(slice_batch(batch, 1, 1).prompt_length_B.item<int64_t>(), samples[1].prompt_lengths.at(0));
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

TEST_F(QuestionSourceTest, RowsThatLackSomethingCanBeSkipped) {
  auto parts = setup(std::string("{\"question\":\"why?\",\"answer\":\"so\"}\n") + kQuestionRows);
  parts.dataset = open_dataset({.path = folder_.path(), .on_error = OnError::kSkip});
  const QuestionSource source(parts);
  ASSERT_EQ(source.size(), 2);
  EXPECT_EQ(source.load(0, 0).record.question, "what is red?");
  EXPECT_EQ(source.dataset().record(1).question, "is it a cup?");
  EXPECT_EQ(source.report()->count(), 1);
}

TEST_F(QuestionSourceTest, TrainingMasksWordsOfQuestions) {
  auto parts = setup(kQuestionRows);
  parts.text = TextEncoding(tokenizer_, {.mask_probability = 0.5});
  const int32_t mask = *tokenizer_->token_id("<|mask|>");
  const auto masked = [&](Phase phase) {
    parts.phase = phase;
    const QuestionSource source(parts);
    int64_t count = 0;
    for (int64_t epoch = 0; epoch < 20; ++epoch) {
      const std::vector<int32_t> row = source.load(1, epoch).token_rows[0];
      count += std::count(row.begin(), row.end(), mask);
    }
    return count;
  };
  EXPECT_GT(masked(Phase::kTrain), 0);
  EXPECT_EQ(masked(Phase::kEvaluate), 0);
}

}  // namespace
}  // namespace fathom::question_source_test
