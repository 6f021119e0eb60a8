// Settings that change nothing in a recipe are named.
#include "train/idle_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fathom::idle_settings_test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TEST(IdleSettings, OfATowerWithoutRegionsAndSounds) {
  RecipeConfig recipe;
  EXPECT_THAT(idle_settings(recipe), IsEmpty());
  recipe.contrastive.region_weight = 0.3;
  recipe.evaluation.rerank = 7;
  recipe.contrastive.pairs.image_text = 2;
  recipe.data.inputs.audio.augment.gain_db = 6;
  recipe.dual_tower.audio.sub_bands = 2;
  EXPECT_THAT(idle_settings(recipe),
              ElementsAre(StartsWith("contrastive.region_weight: model.region = \"none\""),
                          StartsWith("evaluation.rerank: model.region"), StartsWith("contrastive.pairs: "),
                          StartsWith("data.audio.augment: ")));
  recipe.dual_tower.region = RegionScore::kLate;
  recipe.dual_tower.audio_tower = true;
  EXPECT_THAT(idle_settings(recipe), ElementsAre(StartsWith("model.audio.sub_bands: front_end = \"mel\"")));
  recipe.dual_tower.audio.front_end = AudioFrontEnd::kSubBands;
  EXPECT_THAT(idle_settings(recipe), IsEmpty());
}

TEST(IdleSettings, OfAnswersWithoutCaptionsAndOfAdaptersWithoutARank) {
  RecipeConfig recipe;
  recipe.task = TaskKind::kAnswers;
  recipe.data.inputs.question.captions = "captions.jsonl";
  recipe.lora.patterns = {"*"};
  recipe.lora.also_train = {"head"};
  EXPECT_THAT(idle_settings(recipe),
              ElementsAre(StartsWith("data.question.captions: model.captions = false"),
                          StartsWith("lora.patterns: lora.rank = 0"), StartsWith("lora.also_train: ")));
  recipe.fusion.captions = true;
  recipe.lora.rank = 4;
  EXPECT_THAT(idle_settings(recipe), IsEmpty());
}

TEST(IdleSettings, OfGatesToo) {
  RecipeConfig recipe;
  recipe.task = TaskKind::kLanguage;
  recipe.gating.dense_warmup = 7;
  EXPECT_THAT(idle_settings(recipe), ElementsAre(StartsWith("gating.dense_warmup: ")));
}

}  // namespace
}  // namespace fathom::idle_settings_test
