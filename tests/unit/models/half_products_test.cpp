// Whole models under products in FP16: every linear layer takes part, and results are those of float32,
// rounded.
#include <torch/torch.h>

#include <functional>

#include "fusion_fixture.h"
#include "models/classifier/model.h"
#include "nn/init.h"
#include "nn/linear.h"

namespace fathom::half_products_test {
namespace {

using namespace testing;

using ForwardOfModel = std::function<at::Tensor(const ForwardContext&)>;

/// A weight beyond FP16 in any linear layer must be counted. Gradients of all parameters are float32.
void expect_half_products(torch::nn::Module& model, const ForwardOfModel& forward) {
  const ForwardContext low = {.compute_dtype = at::kBFloat16};
  ForwardContext half = low;
  half.products = {.type = at::kHalf, .saturated = torch::zeros({}, at::kLong)};
  const at::Tensor exact = forward({}), found = forward(half);
  EXPECT_EQ(found.scalar_type(), at::kFloat) << "what feeds a loss";
  EXPECT_LT(relative_error(found, exact), 0.05);
  EXPECT_FALSE(at::equal(found, forward(low).to(at::kFloat))) << "as BF16 computes";
  EXPECT_EQ(half.products.saturated.item<int64_t>(), 0);
  found.sum().backward();
  int64_t layers = 0;
  for (const auto& item : model.named_parameters()) {
    const at::Tensor& gradient = item.value().grad();
    EXPECT_TRUE(!gradient.defined() || gradient.scalar_type() == at::kFloat) << item.key();
  }
  const torch::NoGradGuard no_grad;
  for (const auto& item : model.named_modules()) {
    const auto* linear = dynamic_cast<const LinearImpl*>(item.value().get());
    if (linear == nullptr) continue;
    at::Tensor element = linear->weight()[0][0];
    const float kept = element.item<float>();
    element.fill_(1e6);
    half.products.saturated.zero_();
    forward(half);
    EXPECT_GE(half.products.saturated.item<int64_t>(), 1) << item.key();
    element.fill_(kept);
    ++layers;
  }
  EXPECT_GT(layers, 4);
}

template <typename Model>
Model initialised(Model model) {
  init_parameters(*model, 4);
  return model;
}

TEST(HalfProducts, OfALanguageModel) {
  auto model = initialised(LanguageModel(small_language()));
  const at::Tensor tokens = formula_tokens({2, 9}, 31);
  expect_half_products(*model,
                       [&](const ForwardContext& context) { return model->forward(tokens, {}, context); });
}

TEST(HalfProducts, OfACheckpointedLanguageModel) {
  auto model = initialised(LanguageModel(small_language()));
  const at::Tensor tokens = formula_tokens({2, 9}, 31);
  expect_half_products(*model, [&](ForwardContext context) {
    context.checkpoint_blocks = true;
    return model->forward(tokens, {}, context);
  });
}

TEST(HalfProducts, OfADualTower) {
  DualTowerConfig config = small_dual_tower();
  config.adapters = 4;
  auto model = initialised(DualTower(config));
  const at::Tensor tokens = formula_tokens({2, 6}, 31), image = formula_image({2, 3, 32, 32}).to(at::kFloat);
  expect_half_products(*model, [&](const ForwardContext& context) {
    return at::cat({model->embed_image(image, context), model->embed_text(tokens, {}, context)});
  });
}

TEST(HalfProducts, OfRegionScores) {
  DualTowerConfig config = small_dual_tower();
  config.region = RegionScore::kAttention;
  auto model = initialised(DualTower(config));
  const at::Tensor tokens = formula_tokens({2, 6}, 31), image = formula_image({2, 3, 32, 32}).to(at::kFloat);
  expect_half_products(*model, [&](const ForwardContext& context) {
    const PairSide seen = model->encode_image(image, context), read = model->encode_text(tokens, {}, context);
    return at::cat({seen.value_NSD.flatten(), seen.key_NSD.flatten(), seen.whole_ND.flatten(),
                    read.value_NSD.flatten(), read.key_NSD.flatten(), read.whole_ND.flatten()});
  });
}

TEST(HalfProducts, OfProgressiveFusion) {
  auto model = initialised(Fusion(reading_fusion(AnswerKind::kClasses)));
  const at::Tensor image = picture().to(at::kFloat);
  expect_half_products(*model, [&](const ForwardContext& context) {
    Percept percept = model->perceive(image, context);
    percept.caption = model->read(caption(), context);
    return model->class_logits(percept, question(), context);
  });
}

TEST(HalfProducts, OfAClassifierOfSounds) {
  ClassifierConfig config;
  config.encoder = EncoderKind::kAudio;
  config.audio = {
      .bands = 12, .sub_bands = 3, .dim = 16, .layers = 2, .heads = 2, .mlp_dim = 24, .max_frames = 40};
  config.classes = {"one", "other"};
  auto model = initialised(Classifier(config));
  const at::Tensor mel = formula_uniform("mel", 2 * 12 * 40).view({2, 12, 40}).to(at::kFloat);
  expect_half_products(*model, [&](const ForwardContext& context) {
    return model->logits(model->audio()->pooled(mel, {}, context), context);
  });
}

/// Gates decide in float32, and the layer that the device would count falls back to rows that are packed.
TEST(HalfProducts, OfAGatedBlockLeaveTheScorerAlone) {
  LanguageModelConfig config = small_language();
  config.gate.kind = GateKind::kCausal;
  auto model = initialised(LanguageModel(config));
  const at::Tensor tokens = formula_tokens({2, 9}, 31);
  ForwardContext half = {.compute_dtype = at::kBFloat16};
  half.products = {.type = at::kHalf, .saturated = torch::zeros({}, at::kLong)};
  const torch::NoGradGuard no_grad;
  EXPECT_LT(relative_error(model->forward(tokens, {}, half), model->forward(tokens)), 0.05);
  at::Tensor element = model->named_parameters()["blocks.0.gate.scorer.project.weight"][0][0];
  element.fill_(1e6);
  model->forward(tokens, {}, half);
  EXPECT_EQ(half.products.saturated.item<int64_t>(), 0);
}

}  // namespace
}  // namespace fathom::half_products_test
