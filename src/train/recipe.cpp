#include "train/recipe.h"

#include <algorithm>

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
  f.group("data", data, "rows of the kind that data.train has (all but language)");
  f("files", files, "texts (language, masked_token)");
  f("chat_files", chat_files, "conversations (language), read as data.chat says");
}

std::string MixConfig::name() const {
  if (!data.path.empty()) return data.path;
  const std::vector<std::string>& all = files.empty() ? chat_files : files;
  return all.size() == 1 ? all[0] : fmt::format("{} and {} more", all.at(0), all.size() - 1);
}

std::vector<MixConfig> DataConfig::training_items() const {
  if (!mix.empty()) return mix;
  MixConfig only;
  only.data = train;
  only.files = train_files;
  only.chat_files = chat.train_files;
  return {only};
}

std::vector<DatasetConfig> DataConfig::training_sets() const {
  std::vector<DatasetConfig> sets;
  for (const MixConfig& item : training_items())
    if (!item.data.path.empty()) sets.push_back(item.data);
  return sets;
}

std::vector<std::string> DataConfig::training_texts() const {
  std::vector<std::string> texts;
  for (const MixConfig& item : training_items())
    texts.insert(texts.end(), item.files.begin(), item.files.end());
  return texts;
}

std::vector<std::string> DataConfig::training_chats() const {
  std::vector<std::string> chats;
  for (const MixConfig& item : training_items())
    chats.insert(chats.end(), item.chat_files.begin(), item.chat_files.end());
  return chats;
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
  f.group("fp8", fp8, "products in 8 bits under fp8");
  f.group("loss_scale", loss_scale,
          "how gradients keep clear of the ends of FP16 under fp16_bf16; under fp8, how often a step may be "
          "skipped");
  f.group("schedule", schedule, "learning rate over the run");
  f.group("checkpoint", checkpoint, "what is saved, and when");
  f.group("gating", gating, "how gates (model.gate) are held at their density");
  f.group("evaluation", evaluation, "what is measured on held-out data, and when");
  f.group("parallel", parallel, "how ranks exchange gradients");
  f.group("collective", collective, "how ranks meet, and notice failures");
}

const SwinConfig& RecipeConfig::image_encoder() const {
  if (task == TaskKind::kMaskedImage) return vision;
  if (task == TaskKind::kClassification) return classifier.vision;
  return task == TaskKind::kAnswers ? fusion.vision : dual_tower.vision;
}

int64_t RecipeConfig::question_tokens() const {
  const bool generated = fusion.answer == AnswerKind::kGenerated;
  return data.inputs.text.max_tokens + (generated ? data.inputs.question.max_answer_tokens : 0);
}

bool RecipeConfig::learns_sentences() const {
  return !data.training_sets().empty();
}

bool RecipeConfig::evaluates_sentences() const {
  return data.val_files.empty() && !data.val.path.empty();
}

int64_t RecipeConfig::masked_row_tokens() const {
  return data.training_texts().empty() ? data.inputs.text.max_tokens : language.max_positions;
}

namespace {

void add_missing(std::vector<std::string>& tokens, const std::string& token) {
  if (!token.empty() && std::find(tokens.begin(), tokens.end(), token) == tokens.end())
    tokens.push_back(token);
}

}  // namespace

RecipeConfig resolve(RecipeConfig recipe) {
  DataConfig& data = recipe.data;
  if (recipe.task == TaskKind::kLanguage) {
    if (!data.training_chats().empty())
      for (const std::string& token : chat_tokens(data.chat.chat_template))
        add_missing(recipe.tokenizer.train.special_tokens, token);
    return recipe;
  }
  data.inputs.image.size = recipe.image_encoder().image_size;
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
