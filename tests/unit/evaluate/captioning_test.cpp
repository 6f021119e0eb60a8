// Captions under teacher forcing: against one caption at a time.
#include "evaluate/captioning.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/file.h"
#include "byte_tokenizer.h"
#include "data/image/encode.h"
#include "evaluate/answering.h"
#include "evaluate/embedding.h"
#include "nn/init.h"
#include "temporary_folder.h"

namespace fathom::captioning_test {
namespace {

/// Three pictures: one with two captions, one with three, one with a question.
class Captioning : public ::testing::Test {
 protected:
  Captioning() {
    for (int i = 0; i < 3; ++i) {
      Image image{.height = 16, .width = 16, .pixels = std::vector<uint8_t>(768, 90)};
      for (size_t p = 0; p < 300; ++p) image.pixels[p] = static_cast<uint8_t>(60 * i + 5 * (p % 20));
      Record& record = records_.emplace_back();
      record.source = record.id = std::to_string(i) + ".png";
      record.image_path = folder_ / record.id;
      write_file_atomically(record.image_path, encode_png(image));
    }
    records_[0].captions = {"a cup", "it is a cup, and red"};
    records_[1].captions = {"ball", "b", "a ball that is longer than it may be"};
    records_[2].question = "what?";
    records_[2].answers = {"no"};
    FusionConfig config;
    config.answer = AnswerKind::kGenerated;
    config.vision = {
        .image_size = 16, .patch_size = 2, .dim = 8, .depths = {1, 1}, .heads = {2, 2}, .window = 4};
    config.text = {.vocab_size = 300, .dim = 16, .layers = 2, .heads = 2, .max_positions = 64};
    config.early_layers = 1;
    config.initial_gate = 1;
    model_ = Fusion(config);
    init_parameters(*model_, 1);
    inputs_.image.size = 16;
    inputs_.question.max_answer_tokens = 24;
    inputs_.question.caption_prompt = "see";
  }
  std::shared_ptr<const Dataset> dataset(std::vector<Record> records) const {
    return std::make_shared<const Dataset>(folder_.path(), DataFormat::kJsonLines, std::move(records),
                                           std::make_shared<DataReport>());
  }
  AnswerReport measured(int64_t batch_size) const {
    const AnswerData data(dataset(records_), model_->config(), inputs_, tokenizer_);
    return evaluate_answers(model_, data, {.batch_size = batch_size});
  }

  TemporaryFolder folder_;
  std::vector<Record> records_;
  Fusion model_{nullptr};
  ModelInputs inputs_;
  const std::shared_ptr<const Tokenizer> tokenizer_ = std::make_shared<const Tokenizer>(byte_tokenizer());
};

TEST_F(Captioning, AddsUpWhatEachCaptionCosts) {
  const torch::NoGradGuard no_grad;
  model_->eval();
  double nats = 0;
  int64_t tokens = 0;
  for (const Record& whole : records_)
    for (const std::string& caption : whole.captions) {
      Record record = whole;
      record.captions = {caption};
      const QuestionSource source(
          {.dataset = dataset({record}),
           .images = std::make_shared<const ImageViews>(inputs_.image, Phase::kEvaluate),
           .text = TextEncoding(tokenizer_, inputs_.text),
           .config = inputs_.question,
           .answers_follow = true,
           .phase = Phase::kEvaluate});
      const std::vector<Sample> samples{source.load(0, 0)};
      const Batch batch = to_device(collate(samples, {.padding_id = 256}), at::kCPU,
                                    pixel_statistics(model_->config().vision.preprocessing));
      const at::Tensor hidden_BTD = model_->hidden(perceive(model_, batch), asked_texts(batch).question);
      const at::Tensor share_TV = model_->text()->logits(hidden_BTD[0]).to(at::kDouble).log_softmax(1);
      for (int64_t t = batch.prompt_length_B[0].item<int64_t>(); t < batch.length_B[0].item<int64_t>(); ++t) {
        nats -= share_TV[t - 1][batch.tokens_BT[0][t].item<int64_t>()].item<double>();
        ++tokens;
      }
    }
  ASSERT_EQ(tokens, 6 + 21 + 5 + 2 + 24);
  for (const int64_t batch_size : {3, 2, 1}) {
    const AnswerReport report = measured(batch_size);
    EXPECT_EQ(report.captions.captions, 5);
    EXPECT_EQ(report.captions.tokens, tokens);
    EXPECT_NEAR(report.captions.nats, nats, 1e-3);
    EXPECT_EQ(report.all.count, 3);
    EXPECT_EQ(report.blind_captions.tokens, tokens);
    EXPECT_NE(report.blind_captions.nats, report.captions.nats);
    EXPECT_EQ(report.to_json().at("caption_nats").as_double(), report.captions.mean_nats());
    EXPECT_EQ(report.to_json().at("captions").as_int(), 5);
  }
}

TEST_F(Captioning, QuestionsHaveNone) {
  records_.erase(records_.begin(), records_.begin() + 2);
  const AnswerReport report = measured(2);
  EXPECT_EQ(report.captions.captions, 0);
  EXPECT_EQ(report.to_json().find("caption_nats"), nullptr);
}

TEST_F(Captioning, AnyCaptionOfThePictureIsRight) {
  EXPECT_TRUE(is_right(records_[0], "it is a cup, and red"));
  EXPECT_FALSE(is_right(records_[0], "ball"));
  EXPECT_TRUE(is_right(records_[2], "no"));
}

}  // namespace
}  // namespace fathom::captioning_test
