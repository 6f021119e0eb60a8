#include "train/session.h"

#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "evaluate/chat.h"
#include "evaluate/language.h"
#include "evaluate/retrieval_data.h"
#include "models/model_folder.h"
#include "train/session_model.h"
#include "train/session_parts.h"
#include "train/task/contrastive.h"
#include "train/task/language.h"
#include "train/task/masked_image.h"

namespace fathom {
namespace {

/// What `make_part` gives for each data set of the mixture, as one source.
template <typename MakePart>
std::shared_ptr<const SampleSource> mix(const RecipeConfig& recipe, const MakePart& make_part) {
  MixedSource::Setup setup{
      .config = recipe.data.mixing, .batch_size = recipe.training.batch_size, .seed = recipe.seed};
  for (const MixConfig& item : recipe.data.mix) setup.parts.push_back({make_part(item), item.weight});
  return std::make_shared<const MixedSource>(std::move(setup));
}

/// Recall in percent in every direction; `mean_recall` is the mean of all.
Metrics retrieval_metrics(const RetrievalReport& report) {
  Metrics metrics;
  double sum = 0;
  const auto directions = report.all.named();
  for (const auto& [direction, figures] : directions) {
    metrics[direction + "_r1"] = {figures.r1, true};
    metrics[direction + "_r5"] = {figures.r5, true};
    metrics[direction + "_r10"] = {figures.r10, true};
    metrics[direction + "_median_rank"] = {figures.median_rank, false};
    sum += figures.r1 + figures.r5 + figures.r10;
  }
  metrics["mean_recall"] = {sum / (3 * static_cast<double>(directions.size())), true};
  return metrics;
}

/// The names of the figures that an evaluation will give.
Metrics expected_metrics(const DualTowerConfig& model) {
  RetrievalReport report;
  if (model.hears)
    for (const char* direction : {"a2i", "i2a", "a2t", "t2a"}) report.all.sound[direction] = {};
  return retrieval_metrics(report);
}

/// Null without a bank. A loader may prefetch no further than orders are fixed ahead.
std::shared_ptr<HardNegatives> make_hard_negatives(RecipeConfig& recipe, const SessionPlace& place,
                                                   int64_t num_samples) {
  const HardNegativeConfig& config = recipe.contrastive.hard_negatives;
  if (config.refresh == 0) return nullptr;
  const bool wide = parameter_type(recipe.precision) == at::kDouble;
  auto bank = std::make_shared<HardNegatives>(HardNegatives::Setup{
      .config = config,
      .num_samples = num_samples,
      .batch_size = recipe.training.batch_size,
      .dim = recipe.dual_tower.embed_dim,
      .seed = recipe.seed,
      .options = at::TensorOptions().dtype(wide ? at::kDouble : at::kFloat).device(place.runtime.device())});
  recipe.data.loader.prefetch = std::min(recipe.data.loader.prefetch, bank->lead());
  return bank;
}

OrderHook order_hook(const std::shared_ptr<HardNegatives>& hard_negatives) {
  if (!hard_negatives) return {};
  return [hard_negatives](int64_t epoch, std::vector<int64_t> seeded) {
    return hard_negatives->order(epoch, std::move(seeded));
  };
}

/// What the training data of a model that hears has and lacks.
struct SourceFacts {
  bool missing = false;      ///< some sample lacks a modality
  bool has_sound = false;    ///< any has one
  std::string without_text;  ///< the first record without captions
  std::string path;          ///< the last data set

  void add(const Dataset& dataset, const PairedSource& source) {
    path = dataset.path();
    missing = missing || source.first_incomplete() != nullptr;
    for (const Record& record : dataset.records()) {
      has_sound = has_sound || !record.audio_path.empty();
      if (record.captions.empty() && without_text.empty()) without_text = record.source;
    }
  }
  /// Errors (kData): no sound at all; hard negatives where samples lack the texts they are known by.
  void check(const RecipeConfig& recipe) const {
    if (!has_sound) fail(ErrorKind::kData, "{}: model.hears, but no row has audio", path);
    if (recipe.contrastive.hard_negatives.refresh > 0 && !without_text.empty())
      fail(ErrorKind::kData, "{}: contrastive.hard_negatives needs captions in every row", without_text);
  }
};

void open_contrastive(Session& session, const SessionPlace& place) {
  RecipeConfig& recipe = session.recipe;
  check_metric(recipe, expected_metrics(recipe.dual_tower));
  const auto tokenizer = make_tokenizer(recipe, place);
  recipe.dual_tower.text.vocab_size = tokenizer->vocab_size();
  const ModelInputs& inputs = recipe.data.inputs;
  const auto views = std::make_shared<const ImageViews>(inputs.image, Phase::kTrain);
  const TextEncoding encoding(tokenizer, inputs.text);
  const bool hears = recipe.dual_tower.hears;
  const auto clips = hears ? std::make_shared<const AudioViews>(inputs.audio, Phase::kTrain) : nullptr;
  SourceFacts facts;
  const auto source_of = [&](const DatasetConfig& data) -> std::shared_ptr<const SampleSource> {
    std::shared_ptr<const Dataset> dataset = open_dataset(data);
    const auto source =
        std::make_shared<const PairedSource>(PairedSource::Setup{.dataset = dataset,
                                                                 .images = views,
                                                                 .text = encoding,
                                                                 .seed = recipe.seed,
                                                                 .pairing = recipe.data.pairing,
                                                                 .clips = clips});
    facts.add(*dataset, *source);
    return source;
  };
  // Equal shapes let a step be recorded.
  const bool on_cpu = place.runtime.device().is_cpu();
  const auto source = recipe.data.mix.empty()
                          ? source_of(recipe.data.train)
                          : mix(recipe, [&](const MixConfig& item) { return source_of(item.data); });
  if (hears) facts.check(recipe);
  const auto hard_negatives = make_hard_negatives(recipe, place, source->size());
  session.loader = make_loader(recipe, place, source,
                               {.padding_id = encoding.padding_id(),
                                .pad_to = on_cpu ? 0 : inputs.text.max_tokens,
                                .pad_frames_to = on_cpu || !hears ? 0 : inputs.audio.max_frames(),
                                .missing = facts.missing},
                               order_hook(hard_negatives));
  ContrastiveTask::Setup setup{.config = recipe.contrastive,
                               .num_tokens = inputs.text.max_tokens,
                               .num_frames = hears ? inputs.audio.max_frames() : 0,
                               .captions_per_image = recipe.data.pairing.captions_per_image,
                               .views_per_image = recipe.data.pairing.views_per_image,
                               .missing = facts.missing,
                               .seed = recipe.seed,
                               .tokenizer_json = tokenizer->to_json(),
                               .adapter_base = adapter_base_of(recipe),
                               .hard_negatives = hard_negatives};
  if (place.collective.rank() == 0) {
    std::shared_ptr<const Dataset> val = open_dataset(recipe.data.val);
    ModelInputs evaluated = inputs;
    evaluated.text.mask_probability = 0;
    const auto data = std::make_shared<const RetrievalData>(val, evaluated, tokenizer,
                                                            RetrievalData::Options{.hears = hears});
    setup.evaluate = [data, options = evaluate_options(recipe, place, 128)](DualTower model) {
      return retrieval_metrics(evaluate_retrieval(std::move(model), *data, options));
    };
  }
  if (place.without_model) return;
  setup.model = DualTower(recipe.dual_tower);
  note_start(
      session, place,
      place_model(*setup.model, ModelKind::kDualTower, recipe, place.runtime.device(), setup.tokenizer_json));
  session.record["inputs"] = config_to_json(inputs);
  session.record["rerank"] = recipe.evaluation.rerank;
  session.record["evaluation_data"] = std::filesystem::absolute(recipe.data.val.path).string();
  session.task = std::make_unique<ContrastiveTask>(std::move(setup));
}

std::shared_ptr<const SampleSource> training_windows(const RecipeConfig& recipe,
                                                     const std::vector<std::string>& paths,
                                                     const Tokenizer& tokenizer) {
  std::vector<TokenFile> files;
  for (const std::string& path : paths) files.push_back(TokenFile::open(path, tokenizer));
  return std::make_shared<const TokenWindowSource>(std::move(files), recipe.language.max_positions,
                                                   Phase::kTrain, recipe.seed,
                                                   tokenizer.end_of_text().value_or(0));
}

/// Bits per byte of each file by its name, and of all together.
Metrics language_metrics(const LanguageReports& reports) {
  Metrics metrics;
  for (const auto& [name, report] : reports.files)
    metrics["bits_per_byte/" + name] = {report.bits_per_byte(), false};
  const LanguageReport all = reports.all();
  metrics["bits_per_byte"] = {all.bits_per_byte(), false};
  metrics["perplexity"] = {all.perplexity(), false};
  return metrics;
}

std::shared_ptr<const SampleSource> chat_rows(const RecipeConfig& recipe,
                                              const std::vector<std::string>& paths,
                                              const std::shared_ptr<const Tokenizer>& tokenizer,
                                              const SessionPlace& place) {
  const auto rows =
      std::make_shared<const ChatSource>(paths, recipe.data.chat, tokenizer, recipe.language.max_positions);
  if (place.collective.rank() == 0)
    log::info("{} conversations in {} rows, {} tokens to learn; {} cut, {} left out without an answer",
              rows->num_conversations(), rows->size(), rows->num_targets(), rows->num_cut(),
              rows->num_left_out());
  return rows;
}

std::shared_ptr<const SampleSource> language_rows(const RecipeConfig& recipe,
                                                  const std::shared_ptr<const Tokenizer>& tokenizer,
                                                  const SessionPlace& place) {
  const auto rows_of = [&](const std::vector<std::string>& texts, const std::vector<std::string>& chats) {
    return texts.empty() ? chat_rows(recipe, chats, tokenizer, place)
                         : training_windows(recipe, texts, *tokenizer);
  };
  if (recipe.data.mix.empty()) return rows_of(recipe.data.train_files, recipe.data.chat.train_files);
  return mix(recipe, [&](const MixConfig& item) { return rows_of(item.files, item.chat_files); });
}

void add_chat_metrics(Metrics& metrics, const ChatReport& report) {
  metrics["answer_nats"] = {report.nats_per_token(), false};
  metrics["answer_accuracy"] = {report.accuracy(), true};
}

/// Of texts and of conversations, as far as there are any.
std::function<Metrics(LanguageModel)> language_evaluation(const RecipeConfig& recipe,
                                                          const std::shared_ptr<const Tokenizer>& tokenizer,
                                                          const EvaluateOptions& options) {
  const ChatConfig& chat = recipe.data.chat;
  if (recipe.data.val_files.empty() && chat.val_files.empty()) return {};
  const NamedWindows texts = open_texts(recipe.data.val_files, *tokenizer, recipe.language.max_positions);
  std::shared_ptr<const ChatSource> chats;
  if (!chat.val_files.empty())
    chats =
        std::make_shared<const ChatSource>(chat.val_files, chat, tokenizer, recipe.language.max_positions);
  return [texts, chats, options, padding = tokenizer->padding().value_or(0)](const LanguageModel& model) {
    Metrics metrics;
    if (!texts.empty()) metrics = language_metrics(evaluate_language(model, texts, options));
    if (chats) add_chat_metrics(metrics, evaluate_chat(model, chats, padding, options));
    return metrics;
  };
}

void check_language_metric(const RecipeConfig& recipe) {
  LanguageReports reports;
  for (const std::string& name : text_names(recipe.data.val_files)) reports.files[name] = {};
  Metrics figures;
  if (!reports.files.empty()) figures = language_metrics(reports);
  if (!recipe.data.chat.val_files.empty()) add_chat_metrics(figures, {});
  if (!figures.empty()) check_metric(recipe, figures);
}

void open_language(Session& session, const SessionPlace& place) {
  RecipeConfig& recipe = session.recipe;
  check_language_metric(recipe);
  const auto tokenizer = make_tokenizer(recipe, place);
  recipe.language.vocab_size = tokenizer->vocab_size();
  CollateConfig collate{.padding_id = tokenizer->padding().value_or(0)};
  // Equal shapes let a step be recorded.
  const bool learns_chats = !recipe.data.training_chats().empty();
  if (learns_chats && !place.runtime.device().is_cpu()) collate.pad_to = recipe.language.max_positions + 1;
  session.loader = make_loader(recipe, place, language_rows(recipe, tokenizer, place), collate);
  LanguageTask::Setup setup{.num_tokens = recipe.language.max_positions,
                            .tokenizer_json = tokenizer->to_json(),
                            .adapter_base = adapter_base_of(recipe)};
  if (place.collective.rank() == 0)
    setup.evaluate = language_evaluation(recipe, tokenizer, evaluate_options(recipe, place, 16));
  if (learns_chats) {
    if (!recipe.data.chat.val_files.empty()) setup.default_metric = "answer_nats";
    session.record["chat_template"] = chat_template_name(recipe.data.chat.chat_template);
  }
  if (place.without_model) return;
  setup.model = LanguageModel(recipe.language);
  note_start(
      session, place,
      place_model(*setup.model, ModelKind::kLanguage, recipe, place.runtime.device(), setup.tokenizer_json));
  for (const std::string& path : recipe.data.val_files)
    session.record["evaluation_data"].push_back(std::filesystem::absolute(path).string());
  session.task = std::make_unique<LanguageTask>(std::move(setup));
}

void open_masked_image(Session& session, const SessionPlace& place) {
  RecipeConfig& recipe = session.recipe;
  check_metric(recipe, {{"masked_l1", {}}});
  const ModelInputs& inputs = recipe.data.inputs;
  const auto pictures = [&](const DatasetConfig& data, Phase phase) {
    return std::make_shared<const ImageSource>(
        open_dataset(data), std::make_shared<const ImageViews>(inputs.image, phase), recipe.seed);
  };
  session.loader = make_loader(recipe, place, pictures(recipe.data.train, Phase::kTrain), {});
  MaskedImageTask::Setup setup{.config = recipe.masked_image};
  if (place.collective.rank() == 0)
    setup.evaluate = [val = pictures(recipe.data.val, Phase::kEvaluate), config = recipe.masked_image,
                      options = evaluate_options(recipe, place, 128)](MaskedImageModel model) -> Metrics {
      return {{"masked_l1", {masked_image_error(std::move(model), config, val, options), false}}};
    };
  if (place.without_model) return;
  setup.model = MaskedImageModel(recipe.vision);
  note_start(session, place, place_model(*setup.model, ModelKind::kSwin, recipe, place.runtime.device()));
  session.record["inputs"] = config_to_json(inputs);
  session.record["evaluation_data"] = std::filesystem::absolute(recipe.data.val.path).string();
  session.task = std::make_unique<MaskedImageTask>(std::move(setup));
}

}  // namespace

TrainerConfig Session::trainer_config(const std::string& run_folder) const {
  return {.seed = recipe.seed,
          .precision = recipe.precision,
          .training = recipe.training,
          .optimizer = recipe.optimizer,
          .schedule = recipe.schedule,
          .checkpoint = recipe.checkpoint,
          .evaluation = recipe.evaluation,
          .parallel = recipe.parallel,
          .run_folder = run_folder,
          .recipe = config_to_json(recipe),
          .record = record};
}

Session open_session(const RecipeConfig& recipe, const SessionPlace& place) {
  check_ranks(recipe, place.collective.size());
  Session session{.recipe = resolve(recipe)};
  switch (session.recipe.task) {
    case TaskKind::kContrastive:
      open_contrastive(session, place);
      break;
    case TaskKind::kLanguage:
      open_language(session, place);
      break;
    case TaskKind::kAnswers:
      open_answers(session, place);
      break;
    case TaskKind::kClassification:
      open_classification(session, place);
      break;
    case TaskKind::kMaskedImage:
      open_masked_image(session, place);
      break;
    case TaskKind::kMaskedAudio:
      open_masked_audio(session, place);
      break;
  }
  session.record["trained_with"] = Json::Object{{"fathom", version()},
                                                {"commit", commit()},
                                                {"device", place.runtime.name()},
                                                {"processes", place.collective.size()}};
  return session;
}

}  // namespace fathom
