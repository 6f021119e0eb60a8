#include "train/recipe_change.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "train/recipe.h"

namespace fathom::recipe_change_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

class RecipeChange : public ::testing::Test {
 protected:
  /// What is said of a run that began with the recipe as it is and goes on with this one.
  std::string refusal_of(const RecipeConfig& next) const {
    try {
      check_resumed_recipe(config_to_json(began_), config_to_json(next), /*warns=*/false);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kConfig);
      return error.what();
    }
    return "accepted";
  }
  std::string warning_of(const RecipeConfig& next, bool warns = true) const {
    CaptureStderr();
    check_resumed_recipe(config_to_json(began_), config_to_json(next), warns);
    return GetCapturedStderr();
  }

  const RecipeConfig began_;
};

TEST_F(RecipeChange, WhatTheStateDependsOnIsRefusedByName) {
  RecipeConfig next;
  next.seed = 3;
  EXPECT_EQ(refusal_of(next), "seed: the run began with 0, got 3");
  next = {};
  next.training.batch_size = 8;
  EXPECT_EQ(refusal_of(next), "training.batch_size: the run began with 256, got 8");
  next = {};
  next.data.train.path = "other";
  EXPECT_EQ(refusal_of(next), R"(data.train.path: the run began with "", got "other")");
  next = {};
  next.data.train.split = "all";
  EXPECT_THAT(refusal_of(next), HasSubstr("data.train.split: "));
  next = {};
  next.data.val.path = "other";
  EXPECT_THAT(refusal_of(next), HasSubstr("data.val.path: "));
  next = {};
  next.data.train_files = {"a.txt"};
  EXPECT_EQ(refusal_of(next), R"(data.train_files: the run began with [], got ["a.txt"])");
  next = {};
  next.data.val_files = {"a.txt"};
  EXPECT_THAT(refusal_of(next), HasSubstr("data.val_files: "));
  next = {};
  next.data.pairing.questions_per_image = 5;
  EXPECT_EQ(refusal_of(next), "data.pairing.questions_per_image: the run began with 1, got 5");
  next = {};
  next.tokenizer.train.vocab_size = 999;
  EXPECT_THAT(refusal_of(next), HasSubstr("tokenizer.vocab_size: "));
  next = {};
  next.dual_tower.vision.drop_path = 0.5;
  EXPECT_THAT(refusal_of(next), HasSubstr("model.vision.drop_path: "));
  next = {};
  next.task = TaskKind::kLanguage;
  EXPECT_EQ(refusal_of(next), R"(task: the run began with "contrastive", got "language")");
}

TEST_F(RecipeChange, OtherChangesAreNamedInOneWarning) {
  RecipeConfig next;
  next.training.max_steps = 12;
  next.optimizer.rules = {{.pattern = "bias"}};
  next.data.loader.workers += 1;
  const std::string warning = warning_of(next);
  EXPECT_THAT(warning, AllOf(HasSubstr("warning"), HasSubstr("data.loader.workers, training.max_steps, "
                                                             "optimizer.rules")));
  EXPECT_EQ(std::count(warning.begin(), warning.end(), '\n'), 1);
  EXPECT_EQ(warning_of(next, /*warns=*/false), "");
  EXPECT_EQ(warning_of(began_), "");
}

TEST_F(RecipeChange, KeysThatOneProgramDidNotKnowPass) {
  Json former = config_to_json(began_);
  std::erase_if(former["model"].as_object(), [](const auto& member) { return member.first == "embed_dim"; });
  former["model"]["forgotten"] = 3;
  CaptureStderr();
  check_resumed_recipe(former, config_to_json(began_), /*warns=*/true);
  EXPECT_EQ(GetCapturedStderr(), "");
}

TEST_F(RecipeChange, WhatWasWrittenAndReadIsNoChange) {
  RecipeConfig recipe;
  recipe.optimizer.learning_rate = 1.0;  // might come back as an integer
  recipe.training.average_decay = 0.1 + 0.2;
  CaptureStderr();
  check_resumed_recipe(parse_json(config_to_json(recipe).dump(2), "state.json"), config_to_json(recipe),
                       true);
  EXPECT_EQ(GetCapturedStderr(), "");
}

}  // namespace
}  // namespace fathom::recipe_change_test
