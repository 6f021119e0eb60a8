#include "train/session_parts.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "batch/mixed_source.h"
#include "train/best_model.h"

namespace fathom {

EvaluateOptions evaluate_options(const RecipeConfig& recipe, const SessionPlace& place, int64_t batch_size) {
  return {.device = place.runtime.device(),
          .compute_dtype = compute_type(recipe.precision),
          .batch_size = batch_size,
          .workers = recipe.data.loader.workers,
          .rerank = recipe.evaluation.rerank};
}

std::unique_ptr<Loader> make_loader(const RecipeConfig& recipe, const SessionPlace& place,
                                    std::shared_ptr<const SampleSource> source, const CollateConfig& collate,
                                    OrderHook order) {
  return std::make_unique<Loader>(
      LoaderSetup{.source = std::move(source),
                  .sampler = {.batch_size = recipe.training.batch_size,
                              .seed = recipe.seed,
                              .shuffle = recipe.data.mix.empty()},  // a mixture has an order of its own
                  .loader = recipe.data.loader,
                  .collate = collate,
                  .order = std::move(order),
                  .rank = place.collective.rank(),
                  .num_ranks = place.collective.size()});
}

std::vector<std::shared_ptr<const Dataset>> open_training_sets(const RecipeConfig& recipe) {
  std::vector<std::shared_ptr<const Dataset>> sets;
  for (const DatasetConfig& config : recipe.data.training_sets()) sets.push_back(open_dataset(config));
  return sets;
}

std::shared_ptr<const SampleSource> training_source(Session& session, const SampleSources& sources) {
  const RecipeConfig& recipe = session.recipe;
  const std::vector<MixConfig>& items = recipe.data.mix;
  if (items.empty()) return sources.at(0);
  MixedSource::Setup setup{
      .config = recipe.data.mixing, .batch_size = recipe.training.batch_size, .seed = recipe.seed};
  for (size_t i = 0; i < items.size(); ++i) {
    if (sources.at(i)->size() == 0)
      fail(ErrorKind::kData, "{}: nothing to learn from, in data set {} of data.mix", items[i].name(), i + 1);
    setup.parts.push_back({sources[i], items[i].weight});
  }
  auto mixed = std::make_shared<const MixedSource>(std::move(setup));
  for (size_t i = 0; i < items.size(); ++i)
    session.mix.push_back({.data = items[i].name(),
                           .weight = items[i].weight,
                           .samples = sources[i]->size(),
                           .epoch_samples = mixed->quotas()[i]});
  return mixed;
}

void check_metric(const RecipeConfig& recipe, const Metrics& figures) {
  if (!recipe.evaluation.metric.empty()) require_metric(recipe.evaluation.metric, figures);
}

std::string adapter_base_of(const RecipeConfig& recipe) {
  return recipe.lora.active() && recipe.lora.save == AdapterSaving::kAdapter ? recipe.init_from : "";
}

void note_start(Session& session, const SessionPlace& place, const InitReport& report) {
  if (report.loaded.empty()) return;
  if (place.collective.rank() == 0) log::info("init: {}", report.to_text());
  session.record["init"] = report.to_json();
}

void note_evaluation_data(Session& session) {
  DatasetConfig data = session.recipe.data.val;
  for (std::string* path : {&data.path, &data.images, &data.annotations})
    if (!path->empty()) *path = absolute_path(*path);
  session.record["evaluation_data"] = config_to_json(data);
}

void note_evaluation_texts(Session& session) {
  Json paths = Json::array();
  for (const std::string& path : session.recipe.data.val_files) paths.push_back(absolute_path(path));
  session.record["evaluation_data"] = std::move(paths);
}

}  // namespace fathom
