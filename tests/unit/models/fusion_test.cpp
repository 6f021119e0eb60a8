// Fusion models: what an answer may depend on, that each part does something, folders.
#include "models/fusion/model.h"

#include <gmock/gmock.h>

#include "model_fixture.h"
#include "models/model_folder.h"
#include "nn/init.h"

namespace fathom {
namespace {

using namespace testing;
using ::testing::HasSubstr;

FusionConfig small_fusion(FusionKind kind, AnswerKind answer = AnswerKind::kGenerated) {
  FusionConfig config;
  config.fusion = kind;
  config.vision = small_swin();
  config.text = small_language();
  config.text.layers = 3;
  config.adapter_dim = 10;
  config.early_layers = 1;
  config.late_layers = 1;
  config.memory_slots = 3;
  config.cross_heads = 2;
  config.cross_head_dim = 6;
  config.answer = answer;
  if (answer == AnswerKind::kClasses) config.answers = {"no", "red", "yes"};
  if (kind == FusionKind::kConcatTokens) config.text.max_positions = 48;
  return config;
}

Fusion make_fusion(const FusionConfig& config) {
  Fusion model(config);
  fill_by_formula(model);
  model->to(at::kDouble);
  return model;
}

constexpr int64_t kTokens = 9, kPrompt = 5;

PromptedTokens question(int64_t batch = 2) {
  return {formula_tokens({batch, kTokens}, 31), at::full({batch}, kTokens, at::kLong),
          at::full({batch}, kPrompt, at::kLong)};
}

at::Tensor picture(int64_t batch = 2, double offset = 0) {
  return at::arange(batch * 3 * 32 * 32, at::kDouble).mul(0.37).add(offset).sin().view({batch, 3, 32, 32});
}

at::Tensor answer_logits(Fusion& model, const at::Tensor& image, const PromptedTokens& text) {
  const at::NoGradGuard no_grad;
  return model->text()->logits(model->hidden(model->perceive(image), text));
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

class EveryKind : public ::testing::TestWithParam<FusionKind> {};
INSTANTIATE_TEST_SUITE_P(All, EveryKind,
                         ::testing::Values(FusionKind::kProgressive, FusionKind::kConcatPooled,
                                           FusionKind::kConcatTokens, FusionKind::kQuestionOnly));

TEST_P(EveryKind, ChangingAnAnswerTokenChangesNoLogitBeforeIt) {
  auto model = make_fusion(small_fusion(GetParam()));
  const auto text = question();
  const auto before = answer_logits(model, picture(), text);
  for (int64_t place = kPrompt; place < kTokens; ++place) {
    auto changed = text;
    changed.tokens_BT = text.tokens_BT.clone();
    changed.tokens_BT.select(1, place).add_(1).remainder_(31);
    const auto after = answer_logits(model, picture(), changed);
    EXPECT_TRUE(at::equal(before.narrow(1, 0, place), after.narrow(1, 0, place))) << place;
    EXPECT_GT(difference(before.select(1, place), after.select(1, place)), 1e-9) << place;
  }
}

TEST_P(EveryKind, PaddingChangesNoLogit) {
  auto model = make_fusion(small_fusion(GetParam()));
  const auto text = question();
  auto padded = text;
  padded.tokens_BT = at::constant_pad_nd(text.tokens_BT, {0, 4}, 7);
  const auto logits = answer_logits(model, picture(), padded).narrow(1, 0, kTokens);
  EXPECT_LT(difference(logits, answer_logits(model, picture(), text)), 1e-12);
}

TEST_P(EveryKind, SeesItsPictureOrNone) {
  auto model = make_fusion(small_fusion(GetParam()));
  const double change = difference(answer_logits(model, picture(), question()),
                                   answer_logits(model, picture(2, 1.0), question()));
  if (GetParam() == FusionKind::kQuestionOnly)
    EXPECT_EQ(change, 0);
  else
    EXPECT_GT(change, 1e-6);
}

TEST_P(EveryKind, CountsItsParameters) {
  for (const AnswerKind answer : {AnswerKind::kClasses, AnswerKind::kGenerated}) {
    const FusionConfig config = small_fusion(GetParam(), answer);
    int64_t count = 0;
    for (const auto& parameter : Fusion(config)->parameters()) count += parameter.numel();
    EXPECT_EQ(parameter_count(config), count);
  }
}

TEST_P(EveryKind, ComesBackFromItsFolder) {
  const TemporaryFolder folder;
  Fusion model(small_fusion(GetParam(), AnswerKind::kClasses));
  fill_by_formula(model);
  save_model_folder(folder / "model", model);
  const auto loaded = load_model_folder(folder / "model");
  ASSERT_EQ(loaded.kind, ModelKind::kFusion);
  EXPECT_EQ(config_to_json(loaded.fusion->config()), config_to_json(model->config()));
  const auto theirs = loaded.fusion->named_parameters();
  for (const auto& item : model->named_parameters())
    EXPECT_TRUE(at::equal(item.value(), theirs[item.key()])) << item.key();
}

TEST(Progressive, StartsFromTheLanguageModelAlone) {
  auto config = small_fusion(FusionKind::kProgressive);
  Fusion model(config);
  init_parameters(*model, 3);
  model->to(at::kDouble);
  const auto text = question();
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(answer_logits(model, picture(), text), model->text()(text.tokens_BT, text.length_B)));
}

/// With every other gate shut, what is left must still reach the answer.
void expect_path_through(const std::string& open_gate) {
  auto model = make_fusion(small_fusion(FusionKind::kProgressive));
  {
    const at::NoGradGuard no_grad;
    for (auto& item : model->named_parameters())
      if (item.key().ends_with(".gate")) item.value().fill_(item.key().starts_with(open_gate) ? 1.0 : 0.0);
  }
  EXPECT_GT(difference(answer_logits(model, picture(), question()),
                       answer_logits(model, picture(2, 1.0), question())),
            1e-6)
      << open_gate;
}

TEST(Progressive, SeesThroughTheEarlyLayersAlone) {
  expect_path_through("early");
}

TEST(Progressive, SeesThroughTheMemoryAlone) {
  expect_path_through("late");
}

TEST(Progressive, RemembersTheQuestionAndNotTheAnswer) {
  auto model = make_fusion(small_fusion(FusionKind::kProgressive));
  // Without a picture, and from the last place: what reaches it through the memory is the question.
  const auto text = question();
  const at::NoGradGuard no_grad;
  const auto before = model->hidden({}, text);
  auto shorter = text;
  shorter.prompt_length_B = text.prompt_length_B - 1;
  EXPECT_GT(difference(before, model->hidden({}, shorter)), 1e-9);
}

TEST(Progressive, HasFewMoreParametersThanPooledConcatenation) {
  auto config = small_fusion(FusionKind::kProgressive);
  const int64_t progressive = parameter_count(config);
  config.fusion = FusionKind::kConcatPooled;
  EXPECT_GT(progressive, parameter_count(config));
}

TEST(Fusion, GradientsReachEveryParameter) {
  auto model = make_fusion(small_fusion(FusionKind::kProgressive, AnswerKind::kClasses));
  auto text = question();
  text.prompt_length_B = at::Tensor();
  model->class_logits(model->perceive(picture()), text).pow(2).sum().backward();
  for (const auto& item : model->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_GT(item.value().grad().abs().max().item<double>(), 0) << item.key();
  }
}

TEST(Fusion, RefusesShapesThatCannotBe) {
  auto config = small_fusion(FusionKind::kProgressive);
  config.early_layers = 3;
  EXPECT_THAT(error_of([&] { config.validate(); }, ErrorKind::kConfig), HasSubstr("model.early_layers"));
  config = small_fusion(FusionKind::kConcatTokens);
  config.text.attention = AttentionKind::kBidirectional;
  EXPECT_THAT(error_of([&] { config.validate(); }, ErrorKind::kConfig), HasSubstr("model.answer"));
  config = small_fusion(FusionKind::kConcatTokens, AnswerKind::kClasses);
  config.answers.clear();
  EXPECT_THAT(error_of([&] { Fusion{config}; }, ErrorKind::kConfig), HasSubstr("model.answers"));
}

}  // namespace
}  // namespace fathom
