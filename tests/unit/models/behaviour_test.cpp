// Properties of whole models: causality, padding, cached decoding, checkpointing, keyed randomness.
#include <torch/csrc/autograd/function.h>

#include <set>

#include "model_fixture.h"
#include "nn/init.h"

namespace fathom::behaviour_test {
namespace {

using namespace testing;

LanguageModel language(LanguageModelConfig config = small_language()) {
  LanguageModel model(config);
  fill_by_formula(model);
  model->to(at::kDouble);
  return model;
}

TEST(Language, ChangingATokenChangesNoLogitBeforeIt) {
  auto model = language();
  const auto tokens = formula_tokens({2, 12}, 31);
  const auto before = model(tokens);
  auto changed = tokens.clone();
  changed.select(1, 7).add_(1).remainder_(31);
  const auto after = model(changed);
  EXPECT_TRUE(at::equal(before.narrow(1, 0, 7), after.narrow(1, 0, 7)));
  EXPECT_GT((before - after).select(1, 7).abs().min().item<double>(), 0);
  EXPECT_GT((before - after).select(1, 11).abs().max().item<double>(), 1e-6);
}

TEST(Language, BidirectionalStatesSeeLaterTokens) {
  auto config = small_language();
  config.attention = AttentionKind::kBidirectional;
  auto model = language(config);
  auto tokens = formula_tokens({1, 6}, 31);
  const auto before = model->hidden(tokens);
  tokens.select(1, 5).add_(1).remainder_(31);
  EXPECT_GT((model->hidden(tokens) - before).select(1, 0).abs().max().item<double>(), 1e-6);
}

TEST(Language, CachedDecodingEqualsTheFullPass) {
  auto model = language();
  at::NoGradGuard no_grad;
  const auto tokens = formula_tokens({2, 14}, 31);
  const auto full = model(tokens);
  auto cache = model->make_cache(2, 14);
  std::vector<at::Tensor> parts;
  for (const auto& [start, count] : {std::pair{0, 5}, {5, 1}, {6, 4}, {10, 1}, {11, 1}, {12, 2}})
    parts.push_back(model(tokens.narrow(1, start, count), at::Tensor(), ForwardContext{}, &cache));
  EXPECT_LT((at::cat(parts, 1) - full).abs().max().item<double>(), 1e-6);
  EXPECT_EQ(cache.length(), 14);
  EXPECT_NE(error_of([&] { model(tokens, at::Tensor(), ForwardContext{}, &cache); }, ErrorKind::kRequest),
            "");
}

struct PoolCase {
  AttentionKind attention;
  Pool pool;
};
class Padding : public ::testing::TestWithParam<PoolCase> {};
INSTANTIATE_TEST_SUITE_P(All, Padding,
                         ::testing::Values(PoolCase{AttentionKind::kCausal, Pool::kEos},
                                           PoolCase{AttentionKind::kCausal, Pool::kMean},
                                           PoolCase{AttentionKind::kBidirectional, Pool::kEos},
                                           PoolCase{AttentionKind::kBidirectional, Pool::kMean},
                                           PoolCase{AttentionKind::kBidirectional, Pool::kCls}));
TEST_P(Padding, ChangesNoPooledState) {
  auto config = small_language();
  config.attention = GetParam().attention;
  config.pool = GetParam().pool;
  auto model = language(config);
  auto tokens = formula_tokens({2, 9}, 31);
  const auto length = at::tensor({9, 4}, at::kLong);
  const auto pooled = model->pooled(tokens, length);
  auto other = tokens.clone();
  other[1].narrow(0, 4, 5).fill_(0);
  EXPECT_LT((model->pooled(other, length) - pooled).abs().max().item<double>(), 1e-12);
  const auto alone = model->pooled(tokens.narrow(0, 1, 1).narrow(1, 0, 4), at::tensor({4}, at::kLong));
  EXPECT_LT((alone - pooled.narrow(0, 1, 1)).abs().max().item<double>(), 1e-12);
  const auto shorter = model->pooled(tokens, at::tensor({9, 3}, at::kLong));
  if (config.pool != Pool::kCls || config.attention == AttentionKind::kBidirectional) {
    EXPECT_GT((shorter - pooled)[1].abs().max().item<double>(), 1e-6);
  }
}

/// Gradients of all parameters in a training step, with every kind of dropping on.
template <typename Model, typename Forward>
std::vector<at::Tensor> gradients(Model& model, const Forward& forward, const ForwardContext& context) {
  return torch::autograd::grad({forward(context).to(at::kDouble).square().sum()}, model->parameters(), {}, {},
                               false, /*allow_unused=*/true);
}

/// Functions that the backward pass would run: what is recomputed is not among them.
size_t graph_size(const at::Tensor& y) {
  std::set<torch::autograd::Node*> seen;
  std::vector<torch::autograd::Node*> open = {y.grad_fn().get()};
  while (!open.empty()) {
    torch::autograd::Node* node = open.back();
    open.pop_back();
    if (node == nullptr || !seen.insert(node).second) continue;
    for (const auto& edge : node->next_edges()) open.push_back(edge.function.get());
  }
  return seen.size();
}

TEST(Checkpointing, KeepsTheInsideOfBlocksOutOfTheGraph) {
  LanguageModel text(small_language());
  Swin vision(small_swin());
  fill_by_formula(text);
  fill_by_formula(vision);
  const auto tokens = formula_tokens({3, 7}, 31), image = formula_image({3, 3, 32, 32});
  const ForwardContext plain = {.training = true},
                       checkpointed = {.training = true, .checkpoint_blocks = true};
  EXPECT_LT(2 * graph_size(text(tokens, at::Tensor(), checkpointed)),
            graph_size(text(tokens, at::Tensor(), plain)));
  EXPECT_LT(1.5 * graph_size(vision(image, checkpointed)), graph_size(vision(image, plain)));
}

TEST(Checkpointing, GivesTheSameGradientsBitForBitInBothTowers) {
  auto text_config = small_language();
  text_config.dropout = text_config.drop_path = 0.3;
  LanguageModel text(text_config);
  fill_by_formula(text);
  auto vision_config = small_swin();
  vision_config.dropout = vision_config.drop_path = 0.3;
  Swin vision(vision_config);
  fill_by_formula(vision);
  const auto tokens = formula_tokens({3, 7}, 31), image = formula_image({3, 3, 32, 32});
  const auto compare = [&](auto& model, const auto& forward) {
    ForwardContext context = {.training = true, .key_B = sample_keys(3)};
    const auto plain = gradients(model, forward, context);
    context.checkpoint_blocks = true;
    const auto recomputed = gradients(model, forward, context);
    context.key_B = sample_keys(3) + 1;
    const auto other = gradients(model, forward, context);
    for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(at::equal(plain[i], recomputed[i])) << i;
    EXPECT_FALSE(at::equal(plain.front(), other.front()));
  };
  compare(text, [&](const ForwardContext& context) { return text(tokens, at::Tensor(), context); });
  compare(vision, [&](const ForwardContext& context) { return vision(image, context); });
}

TEST(KeyedRandomness, DoesNotDependOnTheSplitOfTheBatch) {
  auto config = small_dual_tower();
  config.text.dropout = config.vision.dropout = 0.2;
  config.text.drop_path = config.vision.drop_path = 0.4;
  DualTower model(config);
  init_parameters(*model, 3);
  model->to(at::kDouble);
  const auto tokens = formula_tokens({5, 6}, 31), image = formula_image({5, 3, 32, 32}).to(at::kDouble);
  const ForwardContext context = {.training = true, .key_B = sample_keys(5)};
  const auto whole_text = model->embed_text(tokens, {}, context),
             whole_image = model->embed_image(image, context);
  for (int64_t i = 0; i < 5; ++i) {
    const ForwardContext one = {.training = true, .key_B = context.key_B.narrow(0, i, 1)};
    EXPECT_LT(
        (model->embed_text(tokens.narrow(0, i, 1), {}, one)[0] - whole_text[i]).abs().max().item<double>(),
        1e-9);
    EXPECT_LT((model->embed_image(image.narrow(0, i, 1), one)[0] - whole_image[i]).abs().max().item<double>(),
              1e-9);
  }
  EXPECT_GT((model->embed_text(tokens, {}) - whole_text).abs().max().item<double>(), 1e-3);
  EXPECT_GT((model->embed_image(image) - whole_image).abs().max().item<double>(), 1e-3);
}

TEST(ComputeType, BFloat16ActivationsLeaveFloat32Gradients) {
  DualTower model(small_dual_tower());
  init_parameters(*model, 4);
  const auto tokens = formula_tokens({2, 6}, 31), image = formula_image({2, 3, 32, 32});
  const ForwardContext low = {.compute_dtype = at::kBFloat16};
  EXPECT_EQ(model->text()->hidden(tokens, {}, low).scalar_type(), at::kBFloat16);
  EXPECT_EQ(model->vision()->features(image, low).scalar_type(), at::kBFloat16);
  const auto embedded = model->embed_image(image, low);
  EXPECT_EQ(embedded.scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(embedded, model->embed_image(image)), 0.05);
  (embedded.sum() + model->embed_text(tokens, {}, low).select(1, 0).sum()).backward();
  for (const auto& item : model->vision()->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_EQ(item.value().grad().scalar_type(), at::kFloat) << item.key();
  }
}

/// The directional derivative of a whole model, by autograd and by differences.
template <typename Model, typename Forward>
void expect_directional_derivative(Model& model, const Forward& forward) {
  at::manual_seed(5);
  const auto parameters = model->parameters();
  std::vector<at::Tensor> direction;
  for (const auto& parameter : parameters) direction.push_back(at::randn_like(parameter));
  const auto grads = torch::autograd::grad({forward()}, parameters);
  double exact = 0;
  for (size_t i = 0; i < grads.size(); ++i) exact += (grads[i] * direction[i]).sum().template item<double>();
  at::NoGradGuard no_grad;
  const auto move = [&](double step) {
    for (size_t i = 0; i < parameters.size(); ++i) parameters[i].add_(direction[i], step);
    return forward().template item<double>();
  };
  const double above = move(1e-6), below = move(-2e-6);
  EXPECT_NEAR(exact, (above - below) / 2e-6, 1e-5 * std::abs(exact));
  EXPECT_GT(std::abs(exact), 1e-3);
}

TEST(Derivatives, OfTheDecoder) {
  auto config = small_language();
  config.qkv_bias = true;
  config.tied_head = false;
  auto model = language(config);
  const auto tokens = formula_tokens({2, 7}, 31);
  expect_directional_derivative(
      model, [&] { return at::cross_entropy_loss(model(tokens).flatten(0, 1), tokens.flatten()); });
}

TEST(Derivatives, OfTheDualTower) {
  DualTower model(small_dual_tower());
  fill_by_formula(model);
  model->to(at::kDouble);
  const auto tokens = formula_tokens({3, 7}, 31), image = formula_image({3, 3, 32, 32}).to(at::kDouble);
  expect_directional_derivative(model, [&] {
    const auto logits =
        at::matmul(model->embed_image(image), model->embed_text(tokens, {}).t()) * model->logit_scale() +
        model->logit_bias();
    return at::cross_entropy_loss(logits, at::arange(3, at::kLong));
  });
}

TEST(Derivatives, OfTheDualTowerWithRegionScores) {
  for (const RegionScore region : {RegionScore::kAttention, RegionScore::kLate}) {
    DualTowerConfig config = small_dual_tower();
    config.region = region;
    config.adapters = 3;
    DualTower model(config);
    fill_by_formula(model);
    model->to(at::kDouble);
    const auto tokens = formula_tokens({3, 7}, 31), image = formula_image({3, 3, 32, 32}).to(at::kDouble);
    const auto length = at::tensor({7, 2, 5}, at::kLong);
    expect_directional_derivative(model, [&] {
      const PairSide texts = model->encode_text(tokens, length), images = model->encode_image(image);
      const auto logits =
          at::matmul(images.whole_ND, texts.whole_ND.t()) * model->logit_scale() + model->logit_bias() +
          pair_scores(texts, images).t() * model->region()->logit_scale() + model->region()->logit_bias();
      return at::cross_entropy_loss(logits, at::arange(3, at::kLong));
    });
  }
}

TEST(DualTowerTest, EncodesWhatItEmbeds) {
  DualTowerConfig config = small_dual_tower();
  config.region = RegionScore::kAttention;
  DualTower model(config);
  fill_by_formula(model);
  const at::NoGradGuard no_grad;
  const auto tokens = formula_tokens({3, 7}, 31), image = formula_image({3, 3, 32, 32});
  const auto length = at::tensor({7, 2, 5}, at::kLong);
  EXPECT_TRUE(at::equal(model->encode_image(image).whole_ND, model->embed_image(image)));
  EXPECT_TRUE(at::equal(model->encode_text(tokens, length).whole_ND, model->embed_text(tokens, length)));
  EXPECT_EQ(model->encode_image(image).key_NSD.sizes(), (at::IntArrayRef{3, 16, 12}));
}

TEST(DualTowerTest, MirroredSeesNoDifferenceBetweenAPictureAndItsMirrorImage) {
  DualTowerConfig config = small_dual_tower();
  const auto image = formula_image({2, 3, 32, 32});
  for (const bool mirrored : {false, true}) {
    config.mirrored = mirrored;
    DualTower model(config);
    fill_by_formula(model);
    const at::NoGradGuard no_grad;
    const auto differs = [&](const ForwardContext& context) {
      return !at::allclose(model->embed_image(image, context), model->embed_image(image.flip(3), context), 0,
                           1e-5);
    };
    EXPECT_EQ(differs({}), !mirrored);
    EXPECT_TRUE(differs({.training = true, .key_B = at::arange(2)}));
  }
}

TEST(DualTowerTest, RegionsOfAMirrorImageLieWhereTheyAreInThePicture) {
  DualTowerConfig config = small_dual_tower();
  config.region = RegionScore::kAttention;
  config.mirrored = true;
  DualTower model(config);
  fill_by_formula(model);
  const at::NoGradGuard no_grad;
  const auto image = formula_image({2, 3, 32, 48});
  const auto regions = [&](const at::Tensor& picture) {
    return model->encode_image(picture).key_NSD.unflatten(1, {4, 6});
  };
  const at::Tensor found_NRCD = regions(image);
  EXPECT_TRUE(at::allclose(regions(image.flip(3)).flip(2), found_NRCD, 0, 1e-5));
  EXPECT_FALSE(at::allclose(found_NRCD.flip(2), found_NRCD, 0, 1e-5));
}

TEST(Swin, TakesImagesOfOtherSizes) {
  Swin model(small_swin());
  init_parameters(*model, 6);
  EXPECT_EQ(model->features(formula_image({1, 3, 32, 32})).sizes(), (at::IntArrayRef{1, 16, 16}));
  EXPECT_EQ(model->features(formula_image({2, 3, 20, 44})).sizes(), (at::IntArrayRef{2, 18, 16}));
  EXPECT_NE(error_of([&] { model(formula_image({1, 3, 30, 32})); }, ErrorKind::kRequest), "");
}

TEST(DualTowerTest, EmbedsToUnitLengthAndClampsItsTemperature) {
  DualTower model(small_dual_tower());
  init_parameters(*model, 7);
  const auto norm = model->embed_image(formula_image({2, 3, 32, 32})).norm(2, {-1});
  EXPECT_NEAR(norm[0].item<float>(), 1.0, 1e-5);
  EXPECT_NEAR(model->logit_scale().item<float>(), 1 / 0.07, 1e-3);
  EXPECT_NEAR(model->logit_bias().item<float>(), -10.0, 1e-6);
  auto log_scale = model->named_parameters(false)["log_scale"];
  {
    at::NoGradGuard no_grad;
    log_scale.fill_(20.0);
  }
  const auto scale = model->logit_scale();
  EXPECT_NEAR(scale.item<float>(), 100.0, 1e-3);
  EXPECT_NEAR(torch::autograd::grad({scale}, {log_scale})[0].item<float>(), 100.0, 1e-3)
      << "finds its way back";
}

TEST(Swin, TakesTheTypeOfItsParameters) {
  Swin model(small_swin());
  init_parameters(*model, 8);
  model->to(at::kDouble);
  EXPECT_EQ(model->features(formula_image({1, 3, 32, 32})).scalar_type(), at::kDouble);
}

}  // namespace
}  // namespace fathom::behaviour_test
