// Everything that a user may set about a run of training: the TOML recipe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "batch/chat_source.h"
#include "batch/loader.h"
#include "batch/mixed_source.h"
#include "batch/sources.h"
#include "batch/token_mask.h"
#include "data/readers/dataset.h"
#include "data/tokenizer/trainer.h"
#include "evaluate/model_inputs.h"
#include "models/classifier/config.h"
#include "models/dual_tower/config.h"
#include "models/fusion/config.h"
#include "models/language/config.h"
#include "models/lora.h"
#include "train/initial_weights.h"
#include "train/task/answering.h"
#include "train/task/classification.h"
#include "train/task/contrastive.h"
#include "train/task/masked_audio.h"
#include "train/task/masked_image.h"
#include "train/trainer_config.h"

namespace fathom {

enum class TaskKind {
  kContrastive,
  kLanguage,
  kAnswers,
  kMaskedImage,
  kMaskedAudio,
  kMaskedToken,
  kClassification
};

/// One of several data sets to train on: `data`, a language recipe's `files` or `chat_files`, a masked-token
/// recipe's `data` or `files`.
struct MixConfig {
  double weight = 1.0;
  DatasetConfig data;
  std::vector<std::string> files;
  std::vector<std::string> chat_files;

  MixConfig() {
    data.split = "train";
    data.table = "data.mix.data";
  }
  void fields(Fields& f);
  /// The path of `data`, or the first file and how many more there are.
  std::string name() const;
};

/// What is read, and how it becomes the model's input.
struct DataConfig {
  DatasetConfig train;  ///< contrastive: images with captions; answers: with questions; classification:
                        ///< labelled; masked_token: sentences in the place of `train_files`
  DatasetConfig val;    ///< what is evaluated on; an empty path is that of `train`
  std::vector<std::string> train_files;  ///< language, masked_token: texts
  std::vector<std::string> val_files;
  std::vector<MixConfig> mix;  ///< in the place of train, train_files and chat.train_files
  MixingConfig mixing;
  ChatConfig chat;  ///< language: conversations in the place of texts
  ModelInputs inputs;
  PairingConfig pairing;
  LoaderConfig loader;

  DataConfig();
  /// What is trained on: the mixture, or one item of `train`, `train_files` and `chat.train_files`.
  std::vector<MixConfig> training_items() const;
  /// The same of each kind, whether mixed or not: data sets that have a path, texts, conversations.
  std::vector<DatasetConfig> training_sets() const;
  std::vector<std::string> training_texts() const;
  std::vector<std::string> training_chats() const;
  void fields(Fields& f);
};

/// A tokenizer that exists, or how one is trained from the training data.
struct TokenizerConfig {
  std::string path;
  TokenizerTrainerConfig train;

  void fields(Fields& f);
  void validate() const;
};

struct RecipeConfig {
  TaskKind task = TaskKind::kContrastive;
  int64_t seed = 0;
  std::string device = "auto";
  Precision precision = Precision::kFp32;
  std::string init_from;
  std::vector<InitRule> init;
  DataConfig data;
  TokenizerConfig tokenizer;
  DualTowerConfig dual_tower;    ///< [model] of a contrastive recipe
  LanguageModelConfig language;  ///< [model] of a language or masked-token recipe
  FusionConfig fusion;           ///< [model] of an answers recipe
  SwinConfig vision;             ///< [model] of a masked-image recipe
  AudioEncoderConfig audio;      ///< [model] of a masked-audio recipe
  ClassifierConfig classifier;   ///< [model] of a classification recipe
  ContrastiveConfig contrastive;
  AnsweringConfig answering;
  MaskedImageConfig masked_image;
  MaskedAudioConfig masked_audio;
  TokenMaskConfig masked_token;
  ClassificationConfig classification;
  LoraConfig lora;
  TrainingConfig training;
  OptimizerConfig optimizer;
  Fp8Config fp8;
  LossScaleConfig loss_scale;
  ScheduleConfig schedule;
  CheckpointConfig checkpoint;
  EvaluationConfig evaluation;
  GateTrainingConfig gating;
  DataParallelConfig parallel;
  CollectiveConfig collective;

  void fields(Fields& f);
  /// Relations between keys, and files that must exist. Errors (kConfig).
  void validate() const;
  /// Of the task's model, where that has one.
  const SwinConfig& image_encoder() const;
  /// Tokens of the longest text of an answers recipe: a question, and the answer behind it where one is
  /// generated.
  int64_t question_tokens() const;
  /// Whether a masked-token recipe learns sentences (`data.train`), beside windows of texts or without.
  bool learns_sentences() const;
  /// Whether it is evaluated on sentences (`data.val`), not on windows of texts.
  bool evaluates_sentences() const;
  /// Tokens of the longest row of a masked-token recipe.
  int64_t masked_row_tokens() const;
};

/// The same for documentation: a recipe whose [model] is a language model's.
struct LanguageRecipeConfig : RecipeConfig {
  LanguageRecipeConfig() { task = TaskKind::kLanguage; }
};

struct AnswersRecipeConfig : RecipeConfig {
  AnswersRecipeConfig() { task = TaskKind::kAnswers; }
};

struct MaskedImageRecipeConfig : RecipeConfig {
  MaskedImageRecipeConfig() { task = TaskKind::kMaskedImage; }
};

struct MaskedAudioRecipeConfig : RecipeConfig {
  MaskedAudioRecipeConfig() { task = TaskKind::kMaskedAudio; }
};

struct MaskedTokenRecipeConfig : RecipeConfig {
  MaskedTokenRecipeConfig() { task = TaskKind::kMaskedToken; }
};

/// … or a classifier.
struct ClassificationRecipeConfig : RecipeConfig {
  ClassificationRecipeConfig() { task = TaskKind::kClassification; }
};

/// Fills in what follows from other keys: the image size from the model, the validation path from the
/// training path, special tokens that the inputs need. Relative paths stay relative to the working folder.
RecipeConfig resolve(RecipeConfig recipe);

/// Errors (kConfig): a batch that `num_ranks` cannot share out evenly.
void check_ranks(const RecipeConfig& recipe, int64_t num_ranks);

}  // namespace fathom
