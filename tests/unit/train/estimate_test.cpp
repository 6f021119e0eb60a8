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

}  // namespace
}  // namespace fathom::estimate_test
