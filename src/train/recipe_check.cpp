// Relations between a recipe's keys, and the files that they name.
#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "data/readers/shard_names.h"
#include "train/recipe.h"

namespace fathom {
namespace {

void require_path(const std::string& key, const std::string& path) {
  if (path.empty()) fail(ErrorKind::kConfig, "{}: not given", key);
  std::error_code unreadable;
  if (!std::filesystem::exists(path, unreadable))
    fail(ErrorKind::kConfig, "{}: \"{}\" does not exist", key, path);
}

/// Of a data set, which may lie in shards that braces name.
void require_data(const std::string& key, const std::string& path) {
  std::error_code unreadable;
  const bool in_shards = path.ends_with(".tar") && !std::filesystem::exists(path, unreadable);
  for (const std::string& file : in_shards ? expand_braces(path) : std::vector<std::string>{path})
    require_path(key, file);
}

/// Of a recipe that learns from rows: one data set or a mixture, and what it is evaluated on.
void check_sets(const DataConfig& data) {
  if (data.mix.empty()) require_data("data.train.path", data.train.path);
  if (!data.mix.empty() && !data.train.path.empty())
    fail(ErrorKind::kConfig, "data.train.path and data.mix: give one of them");
  if (!data.mix.empty() && data.val.path.empty())
    fail(ErrorKind::kConfig, "data.val.path: not given, which data.mix needs");
  for (const MixConfig& item : data.mix) {
    if (!item.files.empty() || !item.chat_files.empty())
      fail(ErrorKind::kConfig,
           "data.mix: files are for language and masked_token recipes, chat_files for language recipes");
    require_data("data.mix.data.path", item.data.path);
  }
  if (!data.val.path.empty()) require_data("data.val.path", data.val.path);
}

void check_training_texts(const DataConfig& data) {
  const bool plain = !data.train_files.empty() || !data.chat.train_files.empty();
  if (data.mix.empty() && !plain)
    fail(ErrorKind::kConfig, "data.train_files: not given (nor data.chat.train_files, nor data.mix)");
  if (!data.train_files.empty() && !data.chat.train_files.empty())
    fail(ErrorKind::kConfig,
         "data.train_files and data.chat.train_files: give one of them, or both in data.mix");
  if (!data.mix.empty() && plain)
    fail(ErrorKind::kConfig, "data.mix takes the place of data.train_files and data.chat.train_files");
  for (const MixConfig& item : data.mix)
    if (item.files.empty() == item.chat_files.empty() || !item.data.path.empty())
      fail(ErrorKind::kConfig, "data.mix: a language recipe needs either files or chat_files in each");
  const auto holds_chats = [](const MixConfig& item) { return !item.chat_files.empty(); };
  const auto chats = std::count_if(data.mix.begin(), data.mix.end(), holds_chats);
  if (chats > 0 && chats < static_cast<int64_t>(data.mix.size()) && data.mixing.unit == MixUnit::kSample)
    fail(ErrorKind::kConfig,
         "data.mixing.unit: texts and conversations need batches of their own: \"batch\"");
  for (const std::string& file : data.training_texts()) require_path("data.train_files", file);
  for (const std::string& file : data.training_chats()) require_path("data.chat.train_files", file);
}

void check_images(const RecipeConfig& recipe, const char* size_key) {
  const int64_t image_size = recipe.image_encoder().image_size;
  const int64_t given = recipe.data.inputs.image.size;
  if (given != 0 && given != image_size)
    fail(ErrorKind::kConfig, "data.image.size: {} differs from {} = {}", given, size_key, image_size);
}

/// `tokens`: the longest row that the language model of `text` gets.
void check_positions(const LanguageModelConfig& text, int64_t tokens) {
  if (tokens > text.max_positions)
    fail(ErrorKind::kConfig, "data.text.max_tokens: {} is more than model.text.max_positions = {}", tokens,
         text.max_positions);
}

void check_answers(const RecipeConfig& recipe) {
  check_sets(recipe.data);
  check_images(recipe, "model.vision.image_size");
  const FusionConfig& model = recipe.fusion;
  const ModelInputs& inputs = recipe.data.inputs;
  check_positions(model.text, model.prefix_tokens() + recipe.question_tokens());
  if (!inputs.question.captions.empty()) require_path("data.question.captions", inputs.question.captions);
  const AnsweringConfig& objective = recipe.answering;
  if (!model.captions &&
      (objective.modality_dropout > 0 || objective.consistency > 0 || objective.reversal > 0))
    fail(ErrorKind::kConfig, "answering.{}: needs two modalities: model.captions = true",
         objective.modality_dropout > 0 ? "modality_dropout"
         : objective.consistency > 0    ? "consistency"
                                        : "reversal");
}

void check_hard_negatives(const RecipeConfig& recipe) {
  const HardNegativeConfig& config = recipe.contrastive.hard_negatives;
  if (config.refresh > 0 && !recipe.data.mix.empty())
    fail(ErrorKind::kConfig, "contrastive.hard_negatives.refresh: data.mix has an order of its own");
  if (recipe.training.batch_size % config.group != 0)
    fail(ErrorKind::kConfig, "contrastive.hard_negatives.group: {} does not divide training.batch_size = {}",
         config.group, recipe.training.batch_size);
}

/// What targets in shares, of mixed pictures (`mixup`) or of similar captions, do not go with.
void check_shared_targets(const RecipeConfig& recipe, const char* key) {
  const ContrastiveConfig& config = recipe.contrastive;
  if (config.loss == ContrastiveLoss::kSigmoid)
    fail(ErrorKind::kConfig, "contrastive.{}: needs contrastive.loss = \"infonce\"", key);
  if (recipe.dual_tower.audio_tower)
    fail(ErrorKind::kConfig, "contrastive.{}: for pictures and texts alone, not with model.audio_tower", key);
  if (config.hard_negatives.max_similarity < 1 || config.hard_negatives.sharpness > 0)
    fail(ErrorKind::kConfig,
         "contrastive.{}: not with contrastive.hard_negatives.{}, which takes other samples for negatives",
         key, config.hard_negatives.sharpness > 0 ? "sharpness" : "max_similarity");
}

void check_mixing(const RecipeConfig& recipe) {
  const ContrastiveConfig& config = recipe.contrastive;
  if (config.mixup == 0) {
    if (config.cutmix_share > 0 || config.mix_share < 1)
      fail(ErrorKind::kConfig, "contrastive.{}: needs contrastive.mixup, from which the shares are drawn",
           config.cutmix_share > 0 ? "cutmix_share" : "mix_share");
    return;
  }
  check_shared_targets(recipe, "mixup");
  if (config.consistency > 0)
    fail(ErrorKind::kConfig,
         "contrastive.mixup: not with contrastive.consistency, which takes a picture for its own text's "
         "alone");
  if (recipe.training.micro_batch_size == 1 || recipe.training.batch_size == 1)
    fail(ErrorKind::kConfig, "contrastive.mixup: with training.{} = 1 there is nobody to mix with",
         recipe.training.batch_size == 1 ? "batch_size" : "micro_batch_size");
}

void check_distillation(const RecipeConfig& recipe) {
  const DistillationConfig& config = recipe.contrastive.distillation;
  for (const std::string& teacher : config.teachers)
    require_path("contrastive.distillation.teachers", teacher);
  if (!config.on()) return;
  check_shared_targets(recipe, "distillation.teachers");
  if (recipe.contrastive.soft_targets > 0)
    fail(ErrorKind::kConfig,
         "contrastive.soft_targets: not with contrastive.distillation, whose teachers give soft targets");
}

/// `keys`: where the model's keys stand.
void check_sounds(const AudioViewConfig& inputs, const AudioEncoderConfig& model,
                  const char* keys = "model.audio") {
  if (inputs.bands != 0 && inputs.bands != model.bands)
    fail(ErrorKind::kConfig, "data.audio.bands: {} differs from {}.bands = {}", inputs.bands, keys,
         model.bands);
  if (inputs.max_frames() > model.max_frames)
    fail(ErrorKind::kConfig, "data.audio.max_seconds: {:g} are {} frames, more than {}.max_frames = {}",
         inputs.max_seconds, inputs.max_frames(), keys, model.max_frames);
  const AudioAugmentConfig& augment = inputs.augment;
  if (augment.band_masks > 0 && augment.band_mask_bands > model.bands)
    fail(ErrorKind::kConfig, "data.audio.augment.band_mask_bands: {} are more than {}.bands = {}",
         augment.band_mask_bands, keys, model.bands);
  if (augment.time_masks > 0 && augment.time_mask_frames > inputs.max_frames())
    fail(ErrorKind::kConfig,
         "data.audio.augment.time_mask_frames: {} are more than the {} frames of the longest clip "
         "(data.audio.max_seconds)",
         augment.time_mask_frames, inputs.max_frames());
}

void check_contrastive(const RecipeConfig& recipe) {
  check_sets(recipe.data);
  check_images(recipe, "model.vision.image_size");
  check_hard_negatives(recipe);
  check_mixing(recipe);
  if (recipe.contrastive.soft_targets > 0) check_shared_targets(recipe, "soft_targets");
  check_distillation(recipe);
  if (recipe.dual_tower.audio_tower) check_sounds(recipe.data.inputs.audio, recipe.dual_tower.audio);
  check_positions(recipe.dual_tower.text, recipe.data.inputs.text.max_tokens);
  if (recipe.contrastive.view_weight > 0 && recipe.data.pairing.views_per_image < 2)
    fail(ErrorKind::kConfig, "contrastive.view_weight: needs data.pairing.views_per_image of at least 2");
  if (recipe.contrastive.caption_weight > 0 && recipe.data.pairing.captions_per_image < 2)
    fail(ErrorKind::kConfig,
         "contrastive.caption_weight: needs data.pairing.captions_per_image of at least 2");
  if (recipe.contrastive.localization > 0 && recipe.dual_tower.vision.num_regions() < 2)
    fail(ErrorKind::kConfig,
         "contrastive.localization: of pictures of model.vision.image_size = {} one region alone is left",
         recipe.dual_tower.vision.image_size);
  if (recipe.contrastive.loss == ContrastiveLoss::kSigmoid && !recipe.dual_tower.logit_bias)
    fail(ErrorKind::kConfig, "contrastive.loss: sigmoid needs model.logit_bias = true");
}

void check_language(const RecipeConfig& recipe) {
  check_training_texts(recipe.data);
  for (const std::string& file : recipe.data.val_files) require_path("data.val_files", file);
  for (const std::string& file : recipe.data.chat.val_files) require_path("data.chat.val_files", file);
  if (recipe.language.attention != AttentionKind::kCausal)
    fail(ErrorKind::kConfig, "model.attention: a language model must be causal");
}

/// Sentences or texts of a masked-token recipe, or a mixture of both.
void check_sentences_and_texts(const DataConfig& data) {
  const bool plain = !data.train_files.empty() || !data.train.path.empty();
  if (data.mix.empty() && !plain)
    fail(ErrorKind::kConfig, "data.train_files: not given (nor data.train.path, nor data.mix)");
  if (!data.train_files.empty() && !data.train.path.empty())
    fail(ErrorKind::kConfig, "data.train_files and data.train.path: give one of them, or both in data.mix");
  if (!data.mix.empty() && plain)
    fail(ErrorKind::kConfig, "data.mix takes the place of data.train_files and data.train.path");
  for (const MixConfig& item : data.mix)
    if (item.files.empty() == item.data.path.empty() || !item.chat_files.empty())
      fail(ErrorKind::kConfig, "data.mix: a masked_token recipe needs either files or data in each");
  if (!data.train.path.empty() && !data.val_files.empty())
    fail(ErrorKind::kConfig, "data.val_files: goes with data.train_files; data.train goes with data.val");
  if (!data.val.path.empty() && !data.val_files.empty())
    fail(ErrorKind::kConfig, "data.val_files and data.val.path: give one of them");
  if (!data.mix.empty() && !data.training_sets().empty() && data.val.path.empty() && data.val_files.empty())
    fail(ErrorKind::kConfig, "data.val.path: not given (nor data.val_files), which data.mix needs");
  for (const DatasetConfig& set : data.training_sets()) require_data(set.table + ".path", set.path);
  for (const std::string& file : data.training_texts()) require_path("data.train_files", file);
  if (!data.val.path.empty()) require_data("data.val.path", data.val.path);
  for (const std::string& file : data.val_files) require_path("data.val_files", file);
}

void check_masked_tokens(const RecipeConfig& recipe) {
  const DataConfig& data = recipe.data;
  if (!data.chat.train_files.empty() || !data.chat.val_files.empty())
    fail(ErrorKind::kConfig, "data.chat: for language recipes only");
  check_sentences_and_texts(data);
  const LanguageModelConfig& model = recipe.language;
  const bool sentences = recipe.learns_sentences() || recipe.evaluates_sentences();
  if (sentences && data.inputs.text.max_tokens > model.max_positions)
    fail(ErrorKind::kConfig, "data.text.max_tokens: {} is more than model.max_positions = {}",
         data.inputs.text.max_tokens, model.max_positions);
  if (model.max_positions < 2)
    fail(ErrorKind::kConfig, "model.max_positions: {} leaves nothing to foretell a token from",
         model.max_positions);
  if (model.attention != AttentionKind::kBidirectional)
    fail(ErrorKind::kConfig,
         "model.attention: hidden tokens are foretold from both sides: take \"bidirectional\"");
}

void check_classification(const RecipeConfig& recipe) {
  check_sets(recipe.data);
  const ModelInputs& inputs = recipe.data.inputs;
  const ClassifierConfig& model = recipe.classifier;
  if (model.encoder == EncoderKind::kAudio) check_sounds(inputs.audio, model.audio);
  if (model.encoder == EncoderKind::kImage && inputs.image.size != 0 &&
      inputs.image.size != model.vision.image_size)
    fail(ErrorKind::kConfig, "data.image.size: {} differs from model.vision.image_size = {}",
         inputs.image.size, model.vision.image_size);
  if (model.encoder == EncoderKind::kText && inputs.text.max_tokens > model.text.max_positions)
    fail(ErrorKind::kConfig, "data.text.max_tokens: {} is more than model.text.max_positions = {}",
         inputs.text.max_tokens, model.text.max_positions);
}

}  // namespace

void RecipeConfig::validate() const {
  if (!init_from.empty()) require_path("init_from", init_from);
  if (!init_from.empty() && !init.empty())
    fail(ErrorKind::kConfig, "init_from takes a whole model, init parts of models: give one of them");
  for (const InitRule& rule : init) require_path("init.from", rule.from);
  if (lora.active() && lora.save == AdapterSaving::kAdapter && task == TaskKind::kContrastive &&
      dual_tower.centred)
    fail(ErrorKind::kConfig, "lora.save: adapters alone leave out what model.centred measures: \"merged\"");
  if (lora.active() && lora.save == AdapterSaving::kAdapter && init_from.empty())
    fail(ErrorKind::kConfig, "lora.save: adapters alone need init_from, the model that they belong to");
  if (lora.active() && lora.save == AdapterSaving::kAdapter &&
      (task == TaskKind::kMaskedImage || task == TaskKind::kMaskedAudio || task == TaskKind::kClassification))
    fail(ErrorKind::kConfig, "lora.save: this task keeps whole models: \"merged\"");
  if (!tokenizer.path.empty()) require_path("tokenizer.path", tokenizer.path);
  if (data.pairing.questions_per_image > 1 && task != TaskKind::kAnswers)
    fail(ErrorKind::kConfig, "data.pairing.questions_per_image: for answers recipes only");
  if (task == TaskKind::kContrastive) check_contrastive(*this);
  if (task == TaskKind::kLanguage) check_language(*this);
  if (task == TaskKind::kAnswers) check_answers(*this);
  if (task == TaskKind::kMaskedImage) {
    check_sets(data);
    check_images(*this, "model.image_size");
    check_masking(masked_image, vision);
  }
  if (task == TaskKind::kMaskedAudio) {
    check_sets(data);
    check_sounds(data.inputs.audio, audio, "model");
    check_spans(masked_audio, data.inputs.audio.max_frames());
  }
  if (task == TaskKind::kMaskedToken) check_masked_tokens(*this);
  if (task == TaskKind::kClassification) check_classification(*this);
}

}  // namespace fathom
