#include "train/idle_settings.h"

#include "train/gate_settings.h"

namespace fathom {
namespace {

/// The audio encoder, if the recipe's model has one.
const AudioEncoderConfig* audio_encoder(const RecipeConfig& recipe) {
  switch (recipe.task) {
    case TaskKind::kContrastive:
      return recipe.dual_tower.audio_tower ? &recipe.dual_tower.audio : nullptr;
    case TaskKind::kClassification:
      return recipe.classifier.encoder == EncoderKind::kAudio ? &recipe.classifier.audio : nullptr;
    case TaskKind::kMaskedAudio:
      return &recipe.audio;
    default:
      return nullptr;
  }
}

void add_contrastive(const RecipeConfig& recipe, IdleSettings& found) {
  const ContrastiveConfig usual;
  const bool has_regions = recipe.dual_tower.region != RegionScore::kNone;
  const char* no_regions = "model.region = \"none\" has no region scores";
  found.add(recipe.contrastive.region_weight != usual.region_weight && !has_regions,
            "contrastive.region_weight", no_regions);
  found.add(recipe.evaluation.rerank != EvaluationConfig().rerank && !has_regions, "evaluation.rerank",
            no_regions);
  found.add(recipe.contrastive.pairs != usual.pairs && !recipe.dual_tower.audio_tower, "contrastive.pairs",
            "there is one kind of pairs without model.audio_tower");
}

void add_sounds(const RecipeConfig& recipe, IdleSettings& found) {
  const AudioEncoderConfig* audio = audio_encoder(recipe);
  found.add(recipe.data.inputs.audio.augment != AudioAugmentConfig() && audio == nullptr,
            "data.audio.augment", "nothing here listens");
  found.add(audio != nullptr && audio->sub_bands != AudioEncoderConfig().sub_bands &&
                audio->front_end != AudioFrontEnd::kSubBands,
            recipe.task == TaskKind::kMaskedAudio ? "model.sub_bands" : "model.audio.sub_bands",
            "front_end = \"mel\" does not split them");
}

}  // namespace

std::vector<std::string> idle_settings(const RecipeConfig& recipe) {
  IdleSettings found(idle_gate_settings(recipe));
  if (recipe.task == TaskKind::kContrastive) add_contrastive(recipe, found);
  add_sounds(recipe, found);
  found.add(recipe.task == TaskKind::kAnswers && !recipe.data.inputs.question.captions.empty() &&
                !recipe.fusion.captions,
            "data.question.captions", "model.captions = false reads none");
  const LoraConfig lora;
  const char* no_rank = "lora.rank = 0 adds no adapters";
  found.add(recipe.lora.patterns != lora.patterns && !recipe.lora.active(), "lora.patterns", no_rank);
  found.add(recipe.lora.also_train != lora.also_train && !recipe.lora.active(), "lora.also_train", no_rank);
  return found.take();
}

}  // namespace fathom
