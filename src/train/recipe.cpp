#include "train/recipe.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"

namespace fathom {

DataConfig::DataConfig() {
  train.split = "train";
  val.split = "val";
  train.table = "data.train";
  val.table = "data.val";
  loader.table = "data.loader";
  inputs.image.size = 0;  // the model's, by `resolve`
  inputs.audio.bands = 0;
}

void MixConfig::fields(Fields& f) {
  f("weight", weight, "share of samples or batches, once divided by the sum of all weights",
    {.low = 1e-6, .high = 1e6});
  f.group("data", data, "images, captions and sounds (contrastive)");
  f("files", files, "texts (language)");
  f("chat_files", chat_files, "conversations (language), read as data.chat says");
}

std::vector<DatasetConfig> DataConfig::training_sets() const {
  if (mix.empty()) return {train};
  std::vector<DatasetConfig> sets;
  for (const MixConfig& item : mix) sets.push_back(item.data);
  return sets;
}

std::vector<std::string> DataConfig::training_texts() const {
  std::vector<std::string> files = train_files;
  for (const MixConfig& item : mix) files.insert(files.end(), item.files.begin(), item.files.end());
  return files;
}

std::vector<std::string> DataConfig::training_chats() const {
  std::vector<std::string> files = chat.train_files;
  for (const MixConfig& item : mix) files.insert(files.end(), item.chat_files.begin(), item.chat_files.end());
  return files;
}

void DataConfig::fields(Fields& f) {
  f.group("train", train, "images and captions (and sounds), or labelled rows, to train on");
  f.group("val", val, "held-out rows of the same kind to evaluate on; without a path, that of train");
  f("train_files", train_files, "texts to train a language model or a text encoder on");
  f("val_files", val_files, "held-out texts, evaluated each and together");
  f.list("mix", mix,
         "several data sets to train on, in the place of train, train_files and chat.train_files");
  f.group("mixing", mixing, "how they are mixed");
  f.group("chat", chat, "conversations whose answers a language model learns");
  f.group("image", inputs.image, "how pictures become the model's input; size 0 takes the model's");
  f.group("audio", inputs.audio, "how sounds become the model's input; bands 0 takes the model's");
  f.group("text", inputs.text, "how captions become the model's input");
  f.group("question", inputs.question, "how questions and answers become the model's input");
  f.group("pairing", pairing, "how much that belongs to a picture one batch holds");
  f.group("loader", loader, "background loading");
}

void TokenizerConfig::fields(Fields& f) {
  f("path", path, "a tokenizer.json; empty trains one from the training data, or takes that of init_from");
  train.fields(f);
}

void TokenizerConfig::validate() const {
  if (path.empty()) train.validate();
}

void RecipeConfig::fields(Fields& f) {
  f.choice("task", task,
           "what is learned: which captions fit which images, the next token of text, answers about images, "
           "what is hidden of images, sounds or texts, or classes",
           {{"contrastive", TaskKind::kContrastive},
            {"language", TaskKind::kLanguage},
            {"answers", TaskKind::kAnswers},
            {"masked_image", TaskKind::kMaskedImage},
            {"masked_audio", TaskKind::kMaskedAudio},
            {"masked_token", TaskKind::kMaskedToken},
            {"classification", TaskKind::kClassification}});
  f("seed", seed, "decides initial weights, order, augmentation and dropout", {.low = 0});
  f("device", device, "auto, cpu, cuda or cuda:N");
  precision_field(f, "precision", precision);
  f("init_from", init_from, "folder of a model of this shape whose weights training begins with");
  f.list("init", init, "parts of finished models that training begins with, the rest from the seed");
  f.group("data", data, "what is read");
  f.group("tokenizer", tokenizer, "how text becomes tokens");
  if (task == TaskKind::kContrastive) {
    f.group("model", dual_tower, "the dual tower");
    f.group("contrastive", contrastive, "the objective");
  } else if (task == TaskKind::kAnswers) {
    f.group("model", fusion, "the language model that sees");
    f.group("answering", answering, "the objective");
  } else if (task == TaskKind::kMaskedImage) {
    f.group("model", vision, "the image encoder, a Swin transformer");
    f.group("masked_image", masked_image, "what is hidden");
  } else if (task == TaskKind::kMaskedAudio) {
    f.group("model", audio, "the audio encoder");
    f.group("masked_audio", masked_audio, "what is hidden");
  } else if (task == TaskKind::kMaskedToken) {
    f.group("model", language, "the text encoder, attention = \"bidirectional\"");
    f.group("masked_token", masked_token, "what is hidden");
  } else if (task == TaskKind::kClassification) {
    f.group("model", classifier, "the classifier");
    f.group("classification", classification, "the objective");
  } else {
    f.group("model", language, "the language model");
  }
  f.group("lora", lora, "low-rank adapters on a model that stays as it is");
  f.group("training", training, "length and size of the run");
  f.group("optimizer", optimizer, "AdamW");
  f.group("schedule", schedule, "learning rate over the run");
  f.group("checkpoint", checkpoint, "what is saved, and when");
  f.group("gating", gating, "how gates (model.gate) are held at their density");
  f.group("evaluation", evaluation, "what is measured on held-out data, and when");
  f.group("parallel", parallel, "how ranks exchange gradients");
  f.group("collective", collective, "how ranks meet, and notice failures");
}

namespace {

void require_path(const std::string& key, const std::string& path) {
  if (path.empty()) fail(ErrorKind::kConfig, "{}: not given", key);
  std::error_code unreadable;
  if (!std::filesystem::exists(path, unreadable))
    fail(ErrorKind::kConfig, "{}: \"{}\" does not exist", key, path);
}

const SwinConfig& vision_of(const RecipeConfig& recipe) {
  if (recipe.task == TaskKind::kMaskedImage) return recipe.vision;
  if (recipe.task == TaskKind::kClassification) return recipe.classifier.vision;
  return recipe.task == TaskKind::kAnswers ? recipe.fusion.vision : recipe.dual_tower.vision;
}

void check_training_sets(const DataConfig& data) {
  if (data.mix.empty()) return require_path("data.train.path", data.train.path);
  if (!data.train.path.empty()) fail(ErrorKind::kConfig, "data.train.path and data.mix: give one of them");
  if (data.val.path.empty()) fail(ErrorKind::kConfig, "data.val.path: not given, which data.mix needs");
  for (const MixConfig& item : data.mix) {
    if (!item.files.empty() || !item.chat_files.empty())
      fail(ErrorKind::kConfig, "data.mix: files and chat_files are for language recipes");
    require_path("data.mix.data.path", item.data.path);
  }
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

void check_one_training_set(const DataConfig& data) {
  if (!data.mix.empty()) fail(ErrorKind::kConfig, "data.mix: for contrastive and language recipes only");
  require_path("data.train.path", data.train.path);
}

void check_images(const RecipeConfig& recipe, const char* size_key) {
  if (!recipe.data.val.path.empty()) require_path("data.val.path", recipe.data.val.path);
  const int64_t image_size = vision_of(recipe).image_size;
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
  check_one_training_set(recipe.data);
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

/// `keys`: where the model's keys stand.
void check_sounds(const AudioViewConfig& inputs, const AudioEncoderConfig& model,
                  const char* keys = "model.audio") {
  if (inputs.bands != 0 && inputs.bands != model.bands)
    fail(ErrorKind::kConfig, "data.audio.bands: {} differs from {}.bands = {}", inputs.bands, keys,
         model.bands);
  if (inputs.max_frames() > model.max_frames)
    fail(ErrorKind::kConfig, "data.audio.max_seconds: {:g} are {} frames, more than {}.max_frames = {}",
         inputs.max_seconds, inputs.max_frames(), keys, model.max_frames);
}

void check_contrastive(const RecipeConfig& recipe) {
  check_training_sets(recipe.data);
  check_images(recipe, "model.vision.image_size");
  check_hard_negatives(recipe);
  if (recipe.dual_tower.hears) check_sounds(recipe.data.inputs.audio, recipe.dual_tower.audio);
  check_positions(recipe.dual_tower.text, recipe.data.inputs.text.max_tokens);
  if (recipe.contrastive.self_weight > 0 && recipe.data.pairing.views_per_image < 2)
    fail(ErrorKind::kConfig, "contrastive.self_weight: needs data.pairing.views_per_image of at least 2");
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

void check_masked_tokens(const RecipeConfig& recipe) {
  const DataConfig& data = recipe.data;
  if (!data.mix.empty()) fail(ErrorKind::kConfig, "data.mix: for contrastive and language recipes only");
  if (!data.chat.train_files.empty() || !data.chat.val_files.empty())
    fail(ErrorKind::kConfig, "data.chat: for language recipes only");
  if (data.train_files.empty() && data.train.path.empty())
    fail(ErrorKind::kConfig, "data.train_files: not given (nor data.train.path)");
  if (!data.train_files.empty() && !data.train.path.empty())
    fail(ErrorKind::kConfig, "data.train_files and data.train.path: give one of them");
  if (recipe.masks_sentences()) {
    require_path("data.train.path", data.train.path);
    if (!data.val.path.empty()) require_path("data.val.path", data.val.path);
    if (!data.val_files.empty())
      fail(ErrorKind::kConfig, "data.val_files: goes with data.train_files; data.train goes with data.val");
  }
  for (const std::string& file : data.train_files) require_path("data.train_files", file);
  for (const std::string& file : data.val_files) require_path("data.val_files", file);
  const LanguageModelConfig& model = recipe.language;
  if (recipe.masked_row_tokens() > model.max_positions)
    fail(ErrorKind::kConfig, "data.text.max_tokens: {} is more than model.max_positions = {}",
         recipe.masked_row_tokens(), model.max_positions);
  if (model.max_positions < 2)
    fail(ErrorKind::kConfig, "model.max_positions: {} leaves nothing to foretell a token from",
         model.max_positions);
  if (model.attention != AttentionKind::kBidirectional)
    fail(ErrorKind::kConfig,
         "model.attention: hidden tokens are foretold from both sides: take \"bidirectional\"");
}

void check_classification(const RecipeConfig& recipe) {
  check_one_training_set(recipe.data);
  if (!recipe.data.val.path.empty()) require_path("data.val.path", recipe.data.val.path);
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

void add_missing(std::vector<std::string>& tokens, const std::string& token) {
  if (!token.empty() && std::find(tokens.begin(), tokens.end(), token) == tokens.end())
    tokens.push_back(token);
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
    check_one_training_set(data);
    check_images(*this, "model.image_size");
    check_masking(masked_image, vision);
  }
  if (task == TaskKind::kMaskedAudio) {
    check_one_training_set(data);
    if (!data.val.path.empty()) require_path("data.val.path", data.val.path);
    check_sounds(data.inputs.audio, audio, "model");
    check_spans(masked_audio, data.inputs.audio.max_frames());
  }
  if (task == TaskKind::kMaskedToken) check_masked_tokens(*this);
  if (task == TaskKind::kClassification) check_classification(*this);
}

int64_t RecipeConfig::question_tokens() const {
  const bool generated = fusion.answer == AnswerKind::kGenerated;
  return data.inputs.text.max_tokens + (generated ? data.inputs.question.max_answer_tokens : 0);
}

bool RecipeConfig::masks_sentences() const {
  return data.train_files.empty();
}

int64_t RecipeConfig::masked_row_tokens() const {
  return masks_sentences() ? data.inputs.text.max_tokens : language.max_positions;
}

RecipeConfig resolve(RecipeConfig recipe) {
  DataConfig& data = recipe.data;
  if (recipe.task == TaskKind::kLanguage) {
    if (!data.training_chats().empty())
      for (const std::string& token : chat_tokens(data.chat.chat_template))
        add_missing(recipe.tokenizer.train.special_tokens, token);
    return recipe;
  }
  data.inputs.image.size = vision_of(recipe).image_size;
  data.inputs.audio.bands =
      recipe.task == TaskKind::kContrastive ? recipe.dual_tower.audio.bands : recipe.classifier.audio.bands;
  if (data.val.path.empty()) {
    const DatasetConfig given = data.val;
    data.val = data.train;
    data.val.split = given.split;
    data.val.limit = given.limit;
    data.val.on_error = given.on_error;
    data.val.table = given.table;
  }
  if (recipe.task == TaskKind::kMaskedToken)
    add_missing(recipe.tokenizer.train.special_tokens, data.inputs.text.mask_token);
  if (recipe.task == TaskKind::kMaskedAudio) data.inputs.audio.bands = recipe.audio.bands;
  if (recipe.task == TaskKind::kMaskedImage || recipe.task == TaskKind::kMaskedAudio) return recipe;
  std::vector<std::string>& special = recipe.tokenizer.train.special_tokens;
  add_missing(special, data.inputs.text.begin_token);
  add_missing(special, data.inputs.text.end_token);
  if (data.inputs.text.mask_probability > 0) add_missing(special, data.inputs.text.mask_token);
  return recipe;
}

void check_ranks(const RecipeConfig& recipe, int64_t num_ranks) {
  if (recipe.training.batch_size % num_ranks != 0)
    fail(ErrorKind::kConfig, "training.batch_size: {} cannot be shared out evenly among {} ranks",
         recipe.training.batch_size, num_ranks);
}

}  // namespace fathom
