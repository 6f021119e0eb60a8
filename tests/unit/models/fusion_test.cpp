// Fusion models: what an answer may depend on, that each part does something, folders.
#include "models/fusion/model.h"

#include <gmock/gmock.h>

#include "gradcheck.h"
#include "model_fixture.h"
#include "models/lora.h"
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

FusionConfig reading_fusion(AnswerKind answer = AnswerKind::kGenerated) {
  auto config = small_fusion(FusionKind::kProgressive, answer);
  config.captions = true;
  return config;
}

PromptedTokens caption(int64_t first = 3) {
  const auto tokens = formula_tokens({2, 6}, 31).add(first).remainder(31);
  return {tokens, at::tensor({6, 4}, at::kLong)};
}

TEST(Captions, AreReadAndTheirPaddingIsNot) {
  auto model = make_fusion(reading_fusion());
  const at::NoGradGuard no_grad;
  const auto answers = [&](const PromptedTokens& words) {
    return model->hidden({.image = model->perceive(picture()).image, .caption = model->read(words)},
                         question());
  };
  const auto before = answers(caption());
  EXPECT_GT(difference(before, answers(caption(4))), 1e-6);
  auto padded = caption();
  padded.tokens_BT[1].slice(0, 4).fill_(1);
  EXPECT_LT(difference(before, answers(padded)), 1e-12);
}

TEST(Captions, AMaskedModalityIsAMissingOne) {
  auto model = make_fusion(reading_fusion());
  const at::NoGradGuard no_grad;
  Percept both{.image = model->perceive(picture()).image, .caption = model->read(caption())};
  const auto regions = both.image.token_BSD.size(1);
  Percept masked = both;
  masked.image.mask_BS = at::zeros({2, regions}, at::kBool);
  EXPECT_LT(difference(model->hidden(masked, question()),
                       model->hidden({.image = {}, .caption = both.caption}, question())),
            1e-12);
  masked = both;
  masked.caption.mask_BS = at::zeros_like(both.caption.mask_BS);
  const auto by_image = model->hidden({.image = both.image}, question());
  EXPECT_LT(difference(model->hidden(masked, question()), by_image), 1e-12);
  EXPECT_GT(difference(model->hidden(both, question()), by_image), 1e-6);
}

TEST(Captions, CountTheirParameters) {
  const FusionConfig config = reading_fusion(AnswerKind::kClasses);
  int64_t count = 0;
  for (const auto& parameter : Fusion(config)->parameters()) count += parameter.numel();
  EXPECT_EQ(parameter_count(config), count);
}

/// The reading model with linear layers in the place of its modal adapters.
FusionConfig projecting_fusion(AnswerKind answer = AnswerKind::kGenerated) {
  FusionConfig config = reading_fusion(answer);
  config.adapter_dim = 0;
  return config;
}

TEST(PlainProjection, IsOneLinearLayerForEachModality) {
  const FusionConfig config = projecting_fusion();
  auto model = make_fusion(config);
  std::vector<std::string> names;
  int64_t count = 0;
  for (const auto& item : model->named_parameters()) {
    count += item.value().numel();
    if (item.key().find("adapter.") != std::string::npos) names.push_back(item.key());
  }
  EXPECT_EQ(parameter_count(config), count);
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("adapter.projection.weight", "adapter.projection.bias",
                                                     "caption_adapter.projection.weight",
                                                     "caption_adapter.projection.bias"));
  const at::NoGradGuard no_grad;
  const auto weights = model->named_parameters();
  const at::Tensor region_BPD = model->vision()->features(picture());
  const at::Tensor expected =
      at::linear(region_BPD, weights["adapter.projection.weight"], weights["adapter.projection.bias"]) +
      weights["region_position"];
  EXPECT_LT(difference(model->perceive(picture()).image.token_BSD, expected), 1e-12);
  const double in = static_cast<double>(config.vision.output_dim()),
               out = static_cast<double>(config.text.dim);
  FusionConfig bottleneck = config;
  bottleneck.adapter_dim = 10;
  const auto saved =
      static_cast<double>(forward_flops(bottleneck, 1, kTokens) - forward_flops(config, 1, kTokens));
  EXPECT_EQ(saved, 2 * static_cast<double>(config.vision.num_regions()) * (10 * (in + out) - in * out) +
                       2 * static_cast<double>(kTokens) * (10 * (out + out) - out * out));
}

TEST(PlainProjection, ComesBackFromItsFolder) {
  const TemporaryFolder folder;
  auto model = make_fusion(projecting_fusion());
  model->to(at::kFloat);
  save_model_folder(folder / "model", model);
  const auto loaded = load_model_folder(folder / "model");
  EXPECT_EQ(loaded.fusion->config().adapter_dim, 0);
  for (const auto& item : model->named_parameters())
    EXPECT_TRUE(at::equal(item.value(), loaded.fusion->named_parameters()[item.key()])) << item.key();
}

TEST(Fusion, EveryAdaptedLayerDropsOutInTraining) {
  const FusionConfig config = reading_fusion(AnswerKind::kClasses);
  auto plain = make_fusion(config);
  for (const auto& [layer, unused] : linear_layers(*plain)) {
    auto model = make_fusion(config);
    add_adapters(*model, {.rank = 2, .alpha = 4, .dropout = 0.5, .patterns = {layer}}, 7);
    const at::NoGradGuard no_grad;
    for (auto& item : model->named_parameters())
      if (item.key().find(".lora_") != std::string::npos)
        item.value().copy_(formula_weight(item.key() + ".matrix", item.value().sizes()));
    const auto logits = [&](const ForwardContext& context) {
      return model->class_logits(
          {.image = model->perceive(picture(), context).image, .caption = model->read(caption(), context)},
          question(), context);
    };
    EXPECT_GT(difference(logits({}), logits({.training = true, .key_B = sample_keys(2)})), 1e-9) << layer;
  }
}

TEST(Fusion, GradientsReachEveryParameter) {
  auto model = make_fusion(reading_fusion(AnswerKind::kClasses));
  auto text = question();
  text.prompt_length_B = at::Tensor();
  model->class_logits({.image = model->perceive(picture()).image, .caption = model->read(caption())}, text)
      .pow(2)
      .sum()
      .backward();
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
}  // namespace fathom
