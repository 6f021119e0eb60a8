#include "base/error.h"
#include "batch/token_mask.h"
#include "data/readers/dataset_part.h"
#include "evaluate/modality_centres.h"
#include "evaluate/retrieval_data.h"
#include "models/narrowed.h"
#include "train/session_model.h"
#include "train/session_parts.h"
#include "train/session_teachers.h"
#include "train/task/contrastive.h"

namespace fathom {
namespace {

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
  if (model.audio_tower)
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

  void add(const PairedSource& source) {
    const Dataset& dataset = *source.dataset();
    path = dataset.path();
    missing = missing || source.first_incomplete() != nullptr;
    for (const Record& record : dataset.records()) {
      has_sound = has_sound || !record.audio_path.empty();
      if (record.captions.empty() && without_text.empty()) without_text = record.source;
    }
  }
  /// Errors (kData): no sound at all; hard negatives where samples lack the texts they are known by.
  void check(const RecipeConfig& recipe) const {
    if (!has_sound) fail(ErrorKind::kData, "{}: model.audio_tower, but no row has audio", path);
    if (recipe.contrastive.hard_negatives.refresh > 0 && !without_text.empty())
      fail(ErrorKind::kData, "{}: contrastive.hard_negatives needs captions in every row", without_text);
  }
};

/// By some of the training data, seen as evaluation sees data: so many records place a mean well within what
/// a linear probe can tell.
std::function<std::vector<at::Tensor>(DualTower)> centre_measurement(
    const std::vector<std::shared_ptr<const Dataset>>& trained, const ModelInputs& inputs,
    const std::shared_ptr<const Tokenizer>& tokenizer, bool audio_tower, const EvaluateOptions& options) {
  constexpr int64_t kMostRecords = 4096;
  std::vector<Record> records;
  for (const auto& dataset : trained) {
    const auto some = some_records(dataset, kMostRecords / static_cast<int64_t>(trained.size()));
    records.insert(records.end(), some->records().begin(), some->records().end());
  }
  const Dataset& first = *trained.front();
  const auto data = std::make_shared<const RetrievalData>(
      std::make_shared<const Dataset>(first.path(), first.format(), std::move(records),
                                      first.shared_report()),
      inputs, tokenizer, RetrievalData::Options{.audio_tower = audio_tower});
  return [data, options](DualTower model) { return measure_centres(std::move(model), *data, options); };
}

}  // namespace

void open_contrastive(Session& session, const SessionPlace& place) {
  RecipeConfig& recipe = session.recipe;
  check_metric(recipe, expected_metrics(recipe.dual_tower));
  const auto tokenizer = make_tokenizer(recipe, place);
  recipe.dual_tower.text.vocab_size = tokenizer->vocab_size();
  const ModelInputs& inputs = recipe.data.inputs;
  const auto views = std::make_shared<const ImageViews>(inputs.image, Phase::kTrain);
  const TextEncoding encoding(tokenizer, inputs.text);
  const bool audio_tower = recipe.dual_tower.audio_tower;
  const auto clips = audio_tower ? std::make_shared<const AudioViews>(inputs.audio, Phase::kTrain) : nullptr;
  SourceFacts facts;
  std::vector<std::shared_ptr<const Dataset>> trained;
  SampleSources sources;
  for (const auto& dataset : open_training_sets(recipe)) {
    const auto source =
        std::make_shared<const PairedSource>(PairedSource::Setup{.dataset = dataset,
                                                                 .images = views,
                                                                 .text = encoding,
                                                                 .seed = recipe.seed,
                                                                 .pairing = recipe.data.pairing,
                                                                 .clips = clips});
    trained.push_back(source->dataset());
    facts.add(*source);
    sources.push_back(source);
  }
  // Equal shapes let a step be recorded.
  const bool on_cpu = place.runtime.device().is_cpu();
  const auto source = training_source(session, sources);
  if (audio_tower) facts.check(recipe);
  const auto hard_negatives = make_hard_negatives(recipe, place, source->size());
  session.loader = make_loader(recipe, place, source,
                               {.padding_id = encoding.padding_id(),
                                .pad_to = on_cpu ? 0 : inputs.text.max_tokens,
                                .pad_frames_to = on_cpu || !audio_tower ? 0 : inputs.audio.max_frames(),
                                .missing = facts.missing},
                               order_hook(hard_negatives));
  ContrastiveTask::Setup setup{
      .config = recipe.contrastive,
      .num_tokens = inputs.text.max_tokens,
      .num_frames = audio_tower ? inputs.audio.max_frames() : 0,
      .captions_per_image = recipe.data.pairing.captions_per_image,
      .views_per_image = recipe.data.pairing.views_per_image,
      .missing = facts.missing,
      .seed = recipe.seed,
      .text_marks =
          mark_ids(*tokenizer, {inputs.text.begin_token, inputs.text.end_token, inputs.text.mask_token}),
      .tokenizer_json = tokenizer->to_json(),
      .adapter_base = adapter_base_of(recipe),
      .hard_negatives = hard_negatives,
      .teachers = load_teachers(recipe, place, *tokenizer)};
  if (place.collective.rank() == 0) {
    std::shared_ptr<const Dataset> val = open_dataset(recipe.data.val);
    ModelInputs evaluated = inputs;
    evaluated.text.mask_probability = 0;
    const auto data = std::make_shared<const RetrievalData>(
        val, evaluated, tokenizer, RetrievalData::Options{.audio_tower = audio_tower});
    if (recipe.dual_tower.centred)
      setup.measure_centres = centre_measurement(trained, evaluated, tokenizer, audio_tower,
                                                 evaluate_options(recipe, place, 128));
    setup.evaluate = [data, options = evaluate_options(recipe, place, 128)](DualTower model) {
      return retrieval_metrics(evaluate_retrieval(std::move(model), *data, options));
    };
  }
  setup.model = DualTower(place.names_only ? narrowed(recipe.dual_tower) : recipe.dual_tower);
  note_start(session, place,
             place_model(*setup.model, ModelKind::kDualTower, recipe, place, setup.tokenizer_json));
  session.record["inputs"] = config_to_json(inputs);
  session.record["rerank"] = recipe.evaluation.rerank;
  note_evaluation_data(session);
  session.task = std::make_unique<ContrastiveTask>(std::move(setup));
}

}  // namespace fathom
