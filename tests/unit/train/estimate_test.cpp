// What --dry-run counts.
#include "train/estimate.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace fathom::estimate_test
