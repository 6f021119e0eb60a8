// Fusion models: what an answer may depend on, that each part does something, folders.
#include "models/fusion/model.h"

#include <gmock/gmock.h>

#include "fusion_fixture.h"
#include "gradcheck.h"
#include "models/model_folder.h"
#include "nn/init.h"

namespace fathom::fusion_test {
namespace {

using namespace testing;
using ::testing::HasSubstr;

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

/// The same weights as far as both have them.
Fusion copy_without(const Fusion& model, const FusionConfig& config) {
  Fusion other = make_fusion(config);
  const at::NoGradGuard no_grad;
  for (auto& item : other->named_parameters()) item.value().copy_(model->named_parameters()[item.key()]);
  return other;
}

TEST(Progressive, WeighsWhatEachModalityBrings) {
  auto config = small_fusion(FusionKind::kProgressive);
  auto model = make_fusion(config);
  const at::NoGradGuard no_grad;
  FusionTrace trace;
  const auto weighed = model->hidden(model->perceive(picture()), question(), {}, &trace);
  EXPECT_EQ(trace.weight_BN.sizes(), at::IntArrayRef({2, 2}));
  EXPECT_LT(difference(trace.weight_BN.sum(1), at::ones({2}, at::kDouble)), 1e-12);
  EXPECT_GT(difference(trace.weight_BN, at::full({2, 2}, 0.5)), 1e-3);
  config.modality_weight = false;
  auto even = copy_without(model, config);
  EXPECT_GT(difference(weighed, even->hidden(even->perceive(picture()), question())), 1e-6);
}

TEST(Progressive, OneModalityAloneIsNotWeighed) {
  auto config = small_fusion(FusionKind::kProgressive);
  auto model = make_fusion(config);
  config.modality_weight = false;
  auto even = copy_without(model, config);
  const at::NoGradGuard no_grad;
  EXPECT_LT(difference(model->hidden({}, question()), even->hidden({}, question())), 1e-12);
}

template <typename Layer>
Layer& child(MemoryAggregator& aggregator, const char* name) {
  return *aggregator->named_children()[name]->as<Layer>();
}

TEST(Progressive, MemoryIsAttentionToWeighedModalities) {
  MemoryAggregator aggregator(CrossAttentionOptions{.dim = 24, .heads = 2, .head_dim = 6}, 3,
                              /*weight_width=*/6);
  fill_by_formula(aggregator);
  aggregator->to(at::kDouble);
  const at::NoGradGuard no_grad;
  const auto states = [](int64_t count, double offset) {
    return at::arange(2 * count * 24, at::kDouble).mul(0.7).add(offset).sin().view({2, count, 24});
  };
  // The second sample has no picture, and a shorter question.
  at::Tensor seen_BP = at::ones({2, 5}, at::kBool), asks_BT = at::ones({2, 4}, at::kBool);
  seen_BP[1].fill_(false);
  asks_BT[1][3].fill_(false);
  FusionTrace trace{.with_attention = true};
  const auto memory = aggregator->forward({{states(5, 0), seen_BP}, {states(4, 1), asks_BT}}, {}, &trace);
  const auto query_BMD = aggregator->named_parameters()["query"].expand({2, 3, 24});
  const at::Tensor modalities_B1 = at::tensor({2.0, 1.0}, at::kDouble).unsqueeze(1);
  const auto scale_BN = trace.weight_BN * modalities_B1;
  const auto weight_BS =
      at::cat({scale_BN.slice(1, 0, 1).expand({2, 5}), scale_BN.slice(1, 1).expand({2, 4})}, 1);
  const auto expected =
      query_BMD + child<CrossAttentionImpl>(aggregator, "attention")
                      .forward(child<RMSNormImpl>(aggregator, "query_norm").forward(query_BMD.contiguous()),
                               {.state_BSD = child<RMSNormImpl>(aggregator, "state_norm")
                                                 .forward(at::cat({states(5, 0), states(4, 1)}, 1)),
                                .mask = at::cat({seen_BP, asks_BT}, 1).unsqueeze(1).unsqueeze(1),
                                .weight_BS = weight_BS});
  EXPECT_LT(difference(memory, expected), 1e-12);
  EXPECT_GT(difference(memory, query_BMD), 1e-3);
  EXPECT_EQ(trace.weight_BN[1][0].item<double>(), 0);
  EXPECT_LT(difference(trace.memory_BMS.sum(2), at::ones({2, 3})), 1e-6);
}

TEST(Progressive, TracesWhereItsQuestionLooks) {
  auto config = small_fusion(FusionKind::kProgressive);
  config.early_layers = 2;
  auto model = make_fusion(config);
  const at::NoGradGuard no_grad;
  FusionTrace trace{.with_attention = true};
  const auto percept = model->perceive(picture());
  const auto traced = model->hidden(percept, question(), {}, &trace);
  EXPECT_TRUE(at::equal(traced, model->hidden(percept, question())));
  const int64_t regions = config.vision.num_regions();
  EXPECT_EQ(trace.reading_BTS.sizes(), at::IntArrayRef({2, kTokens, regions}));
  EXPECT_LT(difference(trace.reading_BTS.sum(2), at::ones({2, kTokens})), 1e-6);
  EXPECT_EQ(trace.memory_BMS.sizes(), at::IntArrayRef({2, 3, regions + kTokens}));
  EXPECT_EQ(trace.memory_BMS.slice(2, regions + kPrompt).abs().max().item<double>(), 0);
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
  config.captions = true;
  EXPECT_THAT(error_of([&] { config.validate(); }, ErrorKind::kConfig), HasSubstr("model.captions"));
}

TEST(MemoryAggregator, HasTheRightDerivatives) {
  torch::manual_seed(5);
  constexpr int64_t kWide = 8;
  const auto states = [](int64_t tokens, double offset) {
    return at::arange(2 * tokens * kWide, at::kDouble).mul(0.61).add(offset).sin().view({2, tokens, kWide});
  };
  const at::Tensor image = states(3, 1), caption = states(2, 2), asked = states(3, 3);
  const at::Tensor read = at::ones({2, 2}, at::kBool), heard = at::ones({2, 3}, at::kBool);
  read[1].fill_(false);  // the second sample has no caption
  heard[0][2].fill_(false);
  for (const int64_t weight_width : {0, 4}) {
    MemoryAggregator memory(CrossAttentionOptions{.dim = kWide, .heads = 2, .head_dim = 3}, 3, weight_width);
    fill_by_formula(memory);
    memory->to(at::kDouble);
    expect_leaf_gradients(
        [&] {
          return memory->forward({{image}, {caption, read}, {asked, heard}});
        },
        with_parameters({image, caption, asked}, memory));
  }
}

TEST(Fusion, SinusoidalPlacesTellEveryRegionFromEveryOther) {
  FusionConfig config = small_fusion(FusionKind::kProgressive);
  config.region_positions = PlaceCode::kSinusoidal;
  Fusion model(config);
  init_parameters(*model, 1);
  const at::Tensor place_PD = model->named_parameters()["region_position"].detach();
  const int64_t side = config.vision.stage_side(config.vision.num_stages() - 1);
  ASSERT_EQ(place_PD.size(0), side * side);
  const at::Tensor size_P = place_PD.square().mean(1);
  EXPECT_LT((size_P - 0.5).abs().max().item<double>(), 1e-6);
  const at::Tensor far_PP = at::cdist(place_PD, place_PD) + 10 * at::eye(side * side);
  EXPECT_GT(far_PP.min().item<double>(), 0.5);
  // Half of the code is the row's alone, half the column's.
  const at::Tensor code_SSD = place_PD.view({side, side, config.text.dim});
  const at::Tensor rows = code_SSD.narrow(2, 0, config.text.dim / 2),
                   columns = code_SSD.narrow(2, config.text.dim / 2, config.text.dim / 2);
  EXPECT_TRUE(at::equal(rows.select(1, 0), rows.select(1, side - 1)));
  EXPECT_TRUE(at::equal(columns.select(0, 0), columns.select(0, side - 1)));
  EXPECT_TRUE(at::equal(rows.select(1, 0), columns.select(0, 0)));

  config.text.dim = 18;
  config.text.heads = config.text.kv_heads = 3;
  EXPECT_THAT([&] { config.validate(); }, ThrowsMessage<Error>(HasSubstr("model.region_positions")));
}

}  // namespace
}  // namespace fathom::fusion_test
