// What --dry-run counts.
#include "train/estimate.h"

#include <gtest/gtest.h>

#include <memory>

namespace fathom::estimate_test {
namespace {

/// Of a model that reads the question with the answer behind it.
TEST(Estimate, GeneratedAnswersCountBesideTheirQuestions) {
  RecipeConfig recipe;
  recipe.task = TaskKind::kAnswers;
  recipe.data.inputs.text.max_tokens = 20;
  recipe.data.inputs.question.max_answer_tokens = 12;
  recipe.training.batch_size = 4;
  recipe.fusion.text.vocab_size = 300;
  recipe.fusion.answers = {"yes", "no"};
  const auto runtime = make_device_runtime(at::kCPU);
  const auto estimate = [&](AnswerKind kind) {
    recipe.fusion.answer = kind;
    return estimate_run(recipe, /*batches_per_epoch=*/10, /*num_ranks=*/1, *runtime);
  };
  const Estimate chosen = estimate(AnswerKind::kClasses);
  EXPECT_EQ(chosen.step_flops, 4 * 3.0 * static_cast<double>(forward_flops(recipe.fusion, 1, 20)));
  const Estimate generated = estimate(AnswerKind::kGenerated);
  EXPECT_EQ(generated.step_flops, 4 * 3.0 * static_cast<double>(forward_flops(recipe.fusion, 1, 32)));
  const LanguageModelConfig& text = recipe.fusion.text;
  EXPECT_EQ(generated.activation_bytes - chosen.activation_bytes, 4 * 12 * text.layers * text.dim * 34 * 2)
      << "in 4-byte types";
}

/// A block keeps 17 numbers a unit of width, one more for each map that a convolution reads.
TEST(Estimate, ConvolutionsKeepWhatTheyRead) {
  RecipeConfig recipe;
  recipe.task = TaskKind::kMaskedImage;
  const auto runtime = make_device_runtime(at::kCPU);
  const auto bytes = [&](int64_t local_mixing, int64_t mlp_mixing, bool checkpoints) {
    recipe.vision.local_mixing = local_mixing;
    recipe.vision.mlp_mixing = mlp_mixing;
    recipe.training.checkpoint_blocks = checkpoints;
    return static_cast<double>(estimate_run(recipe, 10, 1, *runtime).activation_bytes);
  };
  EXPECT_NEAR(bytes(3, 0, false) / bytes(0, 0, false), 18.0 / 17, 1e-6);
  EXPECT_NEAR(bytes(3, 5, false) / bytes(0, 0, false), 22.0 / 17, 1e-6);
  EXPECT_EQ(bytes(3, 5, true), bytes(0, 0, true)) << "inputs of blocks alone";
}

/// 256 rows through two blocks of 128 channels and four products each, of which the feed-forward layer's are
/// of 256.
class EstimateOfFp8 : public ::testing::Test {
 protected:
  EstimateOfFp8() {
    recipe_.task = TaskKind::kLanguage;
    recipe_.language = {.vocab_size = 300, .dim = 128, .layers = 2, .heads = 2, .mlp_dim = 256};
    recipe_.language.max_positions = 64;
    recipe_.training.batch_size = 4;
    recipe_.training.weight_copies = false;
    recipe_.fp8.least_intensity = 0;
  }
  Estimate estimate(Precision precision) {
    recipe_.precision = precision;
    return estimate_run(recipe_, 10, 1, *runtime_);
  }
  /// What FP8 adds.
  int64_t state() { return estimate(Precision::kFp8).state_bytes - estimate(Precision::kBf16).state_bytes; }
  int64_t activations() {
    return estimate(Precision::kFp8).activation_bytes - estimate(Precision::kBf16).activation_bytes;
  }

  static constexpr int64_t kWeights = 3 * 128 * 128 + 128 * 128 + 2 * 256 * 128 + 128 * 256;  ///< of a block
  RecipeConfig recipe_;
  std::unique_ptr<DeviceRuntime> runtime_ = make_device_runtime(at::kCPU);
};

TEST_F(EstimateOfFp8, WeightsAreHeldTwiceAByteEach) {
  EXPECT_EQ(state(), 2 * 2 * kWeights);
  recipe_.training.weight_copies = true;
  EXPECT_EQ(state(), 0) << "in place of copies of two bytes";
}

TEST_F(EstimateOfFp8, InputsOfProductsAreKeptInAByte) {
  EXPECT_EQ(activations(), 2 * 256 * (128 - 128 - 128 - 256))
      << "attention's result beside what it keeps itself";
  recipe_.training.checkpoint_blocks = true;
  EXPECT_EQ(activations(), 0);
}

TEST_F(EstimateOfFp8, ProductsThatStayInBf16AddNothing) {
  recipe_.language.max_positions = 63;
  recipe_.training.batch_size = 1;
  EXPECT_EQ(state(), 0) << "rows in multiples of 16";
  EXPECT_EQ(activations(), 0);
  recipe_.language.max_positions = 64;
  EXPECT_GT(state(), 0);
  recipe_.fp8.least_intensity = 1e6;
  EXPECT_EQ(state(), 0);
  recipe_.fp8.least_intensity = 0;
  recipe_.language.gate = {.kind = GateKind::kCausal, .layer_density = {1, 0.5}};
  EXPECT_EQ(state(), 2 * kWeights) << "a block with a gate";
}

}  // namespace
}  // namespace fathom::estimate_test
