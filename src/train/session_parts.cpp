#include "train/session_parts.h"

#include "base/file.h"
#include "base/log.h"
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

}  // namespace fathom
