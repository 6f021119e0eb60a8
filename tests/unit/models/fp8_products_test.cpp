// Whole models under products in FP8: which layers take part, and what becomes of the others.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <optional>
#include <vector>

#include "gradcheck.h"
#include "models/language/model.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "nn/mlp.h"

namespace fathom::fp8_products_test {
namespace {

using testing::relative_error;

constexpr int64_t kLayers = 2, kProductsOfALayer = 4;

LanguageModelConfig small_config() {
  return {.vocab_size = 32, .dim = 32, .layers = kLayers, .heads = 2, .mlp_dim = 48, .max_positions = 8};
}

LanguageModel made(const LanguageModelConfig& config) {
  LanguageModel model(config);
  init_parameters(*model, 4);
  return model;
}

/// A context, and the weights that were multiplied in FP8 under it.
struct Fp8Forward {
  kernels::Fp8Weights weights;
  kernels::Fp8Products products = {.least_intensity = 0, .weights = &weights};
  ForwardContext context = {.compute_dtype = at::kBFloat16, .fp8 = &products};

  /// Of 16 tokens.
  at::Tensor logits(LanguageModel& model) const {
    return model->forward(at::arange(16).remainder(13).view({2, 8}), {}, context);
  }
};

TEST(Fp8Products, TakeTheLayersOfBlocksAndNotTheHead) {
  LanguageModel model = made(small_config());
  Fp8Forward run;
  const at::Tensor exact = model->forward(at::arange(16).remainder(13).view({2, 8})),
                   found = run.logits(model);
  EXPECT_EQ(run.weights.size(), kLayers * kProductsOfALayer);
  EXPECT_LT(relative_error(found, exact), 0.15);
  EXPECT_GT(relative_error(found, exact), 1e-3);
  found.sum().backward();
  for (const auto& item : model->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_EQ(item.value().grad().scalar_type(), at::kFloat) << item.key();
  }
}

TEST(Fp8Products, TakeBothLayersAroundGelu) {
  at::manual_seed(4);
  GeluMlp mlp(MlpOptions{.dim = 32, .inner = 48});
  init_parameters(*mlp, 4);
  const at::Tensor x = at::randn({2, 8, 32}).to(at::kBFloat16);
  Fp8Forward run;
  const at::Tensor found = mlp->forward(x, run.context);
  EXPECT_EQ(run.weights.size(), 2);
  EXPECT_LT(relative_error(found, mlp->forward(x.to(at::kFloat))), 0.15);
  found.sum().backward();
  for (const auto& parameter : mlp->parameters()) EXPECT_GT(parameter.grad().abs().max().item<double>(), 0);
}

TEST(Fp8Products, OfBlocksThatAreComputedAgainAreTheSame) {
  LanguageModel model = made(small_config());
  Fp8Forward run;
  const auto gradient = [&] {
    model->zero_grad();
    run.logits(model).square().sum().backward();
    return model->named_parameters()["blocks.0.mlp.down.weight"].grad().clone();
  };
  const at::Tensor kept = gradient();
  run.context.checkpoint_blocks = true;
  EXPECT_TRUE(at::equal(gradient(), kept));
}

TEST(Fp8Products, LeaveRowsOfGatesAlone) {
  LanguageModelConfig config = small_config();
  config.gate.kind = GateKind::kCausal;
  LanguageModel model = made(config);
  Fp8Forward run;
  const ForwardContext bfloat = {.compute_dtype = at::kBFloat16};
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(
      at::equal(run.logits(model), model->forward(at::arange(16).remainder(13).view({2, 8}), {}, bfloat)));
  EXPECT_EQ(run.weights.size(), 0);
}

/// On weights that stay as they are, which still are multiplied in FP8.
TEST(Fp8Products, AdaptersLearnBeside) {
  LanguageModel model = made(small_config());
  for (const auto& parameter : model->parameters()) parameter.requires_grad_(false);
  std::vector<Lora> adapters;
  for (const auto& item : model->named_modules())
    if (auto* linear = dynamic_cast<LinearImpl*>(item.value().get()); linear != nullptr)
      adapters.push_back(linear->add_adapter("own", {.rank = 4, .alpha = 4}));
  ASSERT_GE(adapters.size(), static_cast<size_t>(kLayers * kProductsOfALayer));
  {
    const torch::NoGradGuard no_grad;
    for (const Lora& adapter : adapters)
      for (const auto& parameter : adapter->parameters()) parameter.normal_(0, 0.05);
  }
  Fp8Forward run;
  run.logits(model).square().sum().backward();
  EXPECT_EQ(run.weights.size(), kLayers * kProductsOfALayer);
  for (const Lora& adapter : adapters)
    for (const auto& parameter : adapter->parameters())
      EXPECT_GT(parameter.grad().abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace fathom::fp8_products_test
