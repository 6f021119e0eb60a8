// Questions on a report: what was said, and where the model looked.
#include "report/answer_exhibit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/file.h"
#include "byte_tokenizer.h"
#include "data/image/encode.h"
#include "nn/init.h"
#include "report/run_report.h"
#include "temporary_folder.h"

namespace fathom::answer_exhibit_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(LightRegions, IsBrightWhereAttentionIs) {
  const Image grey{.height = 4, .width = 4, .pixels = std::vector<uint8_t>(48, 200)};
  const Image lit = light_regions(grey, torch::tensor({0.0, 0.6, 0.0, 0.3}, at::kFloat), 8);
  ASSERT_EQ(lit.height, 8);
  const auto value = [&](int64_t y, int64_t x) { return lit.pixels[static_cast<size_t>(3 * (8 * y + x))]; };
  EXPECT_EQ(value(0, 7), 200);  // the region that is looked at most
  EXPECT_EQ(value(0, 0), 40);   // a fifth where nothing looks
  EXPECT_EQ(value(7, 7), 120);  // half the attention: 0.2 + 0.8 / 2
  EXPECT_LT(value(0, 2), value(0, 5));
}

class AnswerExhibits : public ::testing::TestWithParam<FusionKind> {
 protected:
  AnswerExhibits() {
    std::vector<Record> records;
    for (int i = 0; i < 3; ++i) {
      const std::string name = std::to_string(i) + ".png";
      Image image{.height = 16, .width = 16, .pixels = std::vector<uint8_t>(768, 90)};
      for (size_t p = 0; p < 300; ++p) image.pixels[p] = static_cast<uint8_t>(60 * i + 5 * (p % 20));
      write_file_atomically(folder_ / name, encode_png(image));
      Record& record = records.emplace_back();
      record.source = record.id = name;
      record.image_path = folder_ / name;
      record.question = "what is <" + name + ">?";
      record.answers = {i == 0 ? "no" : "yes"};
    }
    config_.fusion = GetParam();
    config_.vision = {
        .image_size = 16, .patch_size = 2, .dim = 8, .depths = {1, 1}, .heads = {2, 2}, .window = 4};
    config_.text = {.vocab_size = 300, .dim = 16, .layers = 2, .heads = 2, .max_positions = 64};
    config_.early_layers = 1;
    config_.initial_gate = 1;
    config_.answers = {"no", "yes"};
    model_ = Fusion(config_);
    init_parameters(*model_, 1);
    const torch::NoGradGuard no_grad;
    for (auto& item : model_->named_parameters())  // an untrained model looks everywhere alike
      if (item.key().find("attention.query") != std::string::npos ||
          item.key().find("attention.key_value") != std::string::npos)
        item.value().mul_(30);
    ModelInputs inputs;
    inputs.image.size = 16;
    inputs.text.end_token = "";
    data_ =
        std::make_unique<AnswerData>(std::make_shared<const Dataset>(folder_.path(), DataFormat::kJsonLines,
                                                                     records, std::make_shared<DataReport>()),
                                     config_, inputs, std::make_shared<const Tokenizer>(byte_tokenizer()));
  }
  TemporaryFolder folder_;
  FusionConfig config_;
  Fusion model_{nullptr};
  std::unique_ptr<AnswerData> data_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, AnswerExhibits,
                         ::testing::Values(FusionKind::kProgressive, FusionKind::kConcatTokens,
                                           FusionKind::kQuestionOnly));

TEST_P(AnswerExhibits, ShowWhatWasSaidAndWhereTheModelLooked) {
  const AnswerReport report = evaluate_answers(model_, *data_);
  const auto exhibits = exhibit_answers(model_, *data_, report, {}, {.count = 2, .thumbnail_pixels = 32});
  ASSERT_EQ(exhibits.size(), 2);
  const bool looks = config_.progressive();
  for (const AnswerExhibit& exhibit : exhibits) {
    const size_t place = exhibit.question.find('.') - 1;
    const auto record = static_cast<size_t>(exhibit.question[place] - '0');
    EXPECT_EQ(exhibit.said, report.answers[record]);
    EXPECT_EQ(exhibit.expected, record == 0 ? "no" : "yes");
    EXPECT_EQ(exhibit.right, exhibit.said == exhibit.expected);
    EXPECT_EQ(exhibit.picture.empty(), !config_.sees());
    EXPECT_EQ(exhibit.reading.empty(), !looks);
    EXPECT_EQ(exhibit.memory.empty(), !looks);
    if (looks) {
      EXPECT_TRUE(exhibit.reading != exhibit.picture);
      EXPECT_TRUE(exhibit.reading != exhibit.memory);
      EXPECT_THAT(exhibit.weights, StartsWith("image 0."));
    }
  }
  const std::string page = render_run_report({.title = "asked", .answers = report, .asked = exhibits});
  EXPECT_THAT(page, HasSubstr("Questions and answers"));
  EXPECT_THAT(page, HasSubstr("what is &lt;"));
  EXPECT_EQ(page.find("kept in memory") != std::string::npos, looks);
  EXPECT_EQ(page.find("with every picture grey") != std::string::npos, config_.sees());
}

TEST_P(AnswerExhibits, ShowWhatEachLayerComputesOfQuestionAndPicture) {
  config_.vision.gate = {.kind = GateKind::kToken};
  config_.text.gate = {.kind = GateKind::kCausal};
  Fusion gated(config_);
  init_parameters(*gated, 1);
  const auto exhibits = exhibit_gates(gated, *data_, {}, {.count = 2});
  ASSERT_EQ(exhibits.size(), 2u);
  for (const GateExhibit& exhibit : exhibits) {
    ASSERT_TRUE(exhibit.text);
    std::string question;
    for (const std::string& token : exhibit.text->tokens) question += token;
    EXPECT_THAT(question, StartsWith("what is <"));
    ASSERT_EQ(exhibit.text->layers.size(), 2u);
    EXPECT_EQ(exhibit.text->layers[0].kept.size(), exhibit.text->tokens.size());
    std::vector<std::string> titles;
    for (const GatedPicture& picture : exhibit.pictures) titles.push_back(picture.title);
    std::vector<std::string> expected;
    if (config_.sees()) expected.emplace_back("image encoder");
    if (config_.fusion == FusionKind::kConcatTokens) expected.emplace_back("regions in the language model");
    EXPECT_EQ(titles, expected);
  }
  EXPECT_TRUE(exhibit_gates(model_, *data_, {}, {.count = 2}).empty()) << "it has no gates";
}

TEST_P(AnswerExhibits, OfCaptionedPicturesShowPromptAndCaptions) {
  Record record;
  record.source = "0.png";
  record.image_path = folder_ / "0.png";
  record.captions = {"a cup", "a <red> cup"};
  ModelInputs inputs;
  inputs.image.size = 16;
  inputs.text.end_token = "";
  inputs.question.caption_prompt = "say what it is";
  FusionConfig without_classes = config_;  // among which captions are not chosen
  without_classes.answers.clear();
  const AnswerData data(
      std::make_shared<const Dataset>(folder_.path(), DataFormat::kJsonLines, std::vector<Record>{record},
                                      std::make_shared<DataReport>()),
      without_classes, inputs, std::make_shared<const Tokenizer>(byte_tokenizer()));
  AnswerReport report = evaluate_answers(model_, data);
  report.captions = {.nats = 3, .tokens = 2, .captions = 2};
  const auto exhibits = exhibit_answers(model_, data, report, {}, {.count = 1, .thumbnail_pixels = 32});
  ASSERT_EQ(exhibits.size(), 1);
  EXPECT_EQ(exhibits[0].question, "say what it is");
  EXPECT_EQ(exhibits[0].expected, "a cup | a <red> cup");
  const std::string page = render_run_report({.title = "asked", .answers = report, .asked = exhibits});
  EXPECT_THAT(page, HasSubstr("(captions: a cup | a &lt;red&gt; cup)"));
  EXPECT_THAT(page, HasSubstr("1.5000"));
  EXPECT_THAT(page, Not(HasSubstr("(right:")));
}

}  // namespace
}  // namespace fathom::answer_exhibit_test
