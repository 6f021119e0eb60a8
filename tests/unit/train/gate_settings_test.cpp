// Settings of gates that change nothing are named.
#include "train/gate_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fathom::gate_settings_test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StartsWith;

RecipeConfig language(const GateConfig& gate, const GateTrainingConfig& gating = {}) {
  RecipeConfig recipe;
  recipe.task = TaskKind::kLanguage;
  recipe.language.gate = gate;
  recipe.gating = gating;
  return recipe;
}

TEST(GateSettings, WhatHasAnEffectIsNotNamed) {
  const GateTrainingConfig all = {
      .explore = 0.1, .dense_warmup = 7, .rate = 0.1, .damping = 2, .score_values = true};
  EXPECT_THAT(idle_gate_settings(language({})), IsEmpty());
  EXPECT_THAT(
      idle_gate_settings(language(
          {.kind = GateKind::kCausal, .part = GatedPart::kAttention, .density = 0.3, .inner = 4}, all)),
      IsEmpty());
  EXPECT_THAT(idle_gate_settings(language({.kind = GateKind::kTopK, .layer_density = {1, 0.2}, .inner = 4},
                                          {.dense_warmup = 7})),
              IsEmpty());
}

TEST(GateSettings, WithoutGatesEverySettingIsNamed) {
  const GateTrainingConfig all = {
      .explore = 0.1, .dense_warmup = 7, .rate = 0.1, .damping = 2, .score_values = true};
  EXPECT_THAT(idle_gate_settings(language({.part = GatedPart::kMlp, .density = 0.3, .inner = 4}, all)),
              ElementsAre(StartsWith("model.gate.part: kind = \"none\""), StartsWith("model.gate.density: "),
                          StartsWith("model.gate.inner: "), StartsWith("gating.explore: "),
                          StartsWith("gating.rate: "), StartsWith("gating.damping: "),
                          StartsWith("gating.dense_warmup: "), StartsWith("gating.score_values: ")));
}

TEST(GateSettings, OfOtherKindsWhatTheyLack) {
  for (const GateKind kind : {GateKind::kRandom, GateKind::kAlternate}) {
    EXPECT_THAT(idle_gate_settings(language({.kind = kind, .density = 0.3, .inner = 4}, {.explore = 0.1})),
                ElementsAre(StartsWith("model.gate.inner: kind = \""), StartsWith("gating.explore: ")));
  }
  EXPECT_THAT(idle_gate_settings(language({.kind = GateKind::kTopK}, {.rate = 0.1})),
              ElementsAre(StartsWith("gating.rate: ")));
  EXPECT_THAT(idle_gate_settings(language({.kind = GateKind::kPooled, .inner = 4})),
              ElementsAre(StartsWith("model.gate.inner: kind = \"pooled\"")));
  EXPECT_THAT(
      idle_gate_settings(language({.kind = GateKind::kCausal, .density = 0.3, .layer_density = {0.5, 0.5}})),
      ElementsAre(StartsWith("model.gate.density: layer_density")));
  EXPECT_THAT(idle_gate_settings(
                  language({.kind = GateKind::kCausal, .part = GatedPart::kMlp}, {.score_values = true})),
              ElementsAre(StartsWith("gating.score_values: ")));
  EXPECT_THAT(idle_gate_settings(language({.kind = GateKind::kCausal, .density = 1})),
              ElementsAre(StartsWith("model.gate.kind: with a density of 1")));
}

TEST(GateSettings, OfTowersByTheirNames) {
  RecipeConfig recipe;
  recipe.task = TaskKind::kContrastive;
  recipe.dual_tower.vision.gate = {.kind = GateKind::kToken};
  recipe.dual_tower.text.gate = {.inner = 3};
  recipe.dual_tower.audio.gate = {.kind = GateKind::kToken};
  recipe.gating.score_values = true;  // windows have no keys that a gate could take away
  EXPECT_THAT(idle_gate_settings(recipe),
              ElementsAre(StartsWith("model.text.gate.inner: "),
                          StartsWith("model.audio.gate.kind: this model has no such encoder"),
                          StartsWith("gating.score_values: ")));
  recipe.dual_tower.audio_tower = true;
  recipe.dual_tower.text.gate = {};
  EXPECT_THAT(idle_gate_settings(recipe), IsEmpty());
}

}  // namespace
}  // namespace fathom::gate_settings_test
