#include "train/session_model.h"

#include <torch/torch.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "models/lora.h"
#include "models/weight_map.h"
#include "nn/init.h"

namespace fathom {
namespace {

void require_kind(const RecipeConfig& recipe, ModelKind given, ModelKind needed) {
  if (given != needed)
    fail(ErrorKind::kCheckpoint, "init_from: {} holds a {} model, the recipe needs a {} model",
         recipe.init_from, model_kind_name(given), model_kind_name(needed));
}

[[noreturn]] void does_not_fit(const std::string& source, const std::string& parameter, const char* how) {
  fail(ErrorKind::kCheckpoint, "init_from: {}: {} is {}; the recipe's [model] must have the folder's shape",
       source, parameter, how);
}

/// A dense model may be given gates: the number of their parameters, which keep their first values.
int64_t copy_weights(torch::nn::Module& from, torch::nn::Module& to, const std::string& source) {
  const torch::NoGradGuard no_grad;
  const auto given = from.named_parameters();
  int64_t num_new = 0;
  for (auto& entry : to.named_parameters()) {
    const at::Tensor* found = given.find(entry.key());
    if (!found && belongs_to_gate(entry.key())) {
      num_new += entry.value().numel();
      continue;
    }
    if (!found || found->sizes() != entry.value().sizes())
      does_not_fit(source, entry.key(), found ? "of another shape" : "absent");
    entry.value().copy_(*found);
  }
  if (num_new > 0)
    log::info("init_from: {} parameters of gates are not in {} and begin anew", num_new, source);
  const auto taken = to.named_parameters();
  int64_t num_dropped = 0;
  for (const auto& entry : given)
    if (belongs_to_gate(entry.key()) && !taken.contains(entry.key())) num_dropped += entry.value().numel();
  if (num_dropped > 0)
    log::warning("init_from: {} parameters of gates in {} have no place in this model and are left out",
                 num_dropped, source);
  return num_new;
}

/// Low-rank adapters leave everything else as it is, but gates that the model did not have have to be
/// learned.
void free_new_gates(torch::nn::Module& module, const LoraConfig& lora) {
  if (lora.save == AdapterSaving::kAdapter)
    fail(ErrorKind::kConfig,
         "lora.save = \"adapter\" keeps the adapters alone, but this run gives the model gates: take "
         "\"merged\"");
  for (auto& entry : module.named_parameters())
    if (belongs_to_gate(entry.key())) entry.value().set_requires_grad(true);
}

/// As far as names tell.
void check_sources(const torch::nn::Module& module, ModelKind kind, const RecipeConfig& recipe) {
  check_initial_names(module, recipe.init);
  if (recipe.init_from.empty()) return;
  require_kind(recipe, model_kind(recipe.init_from), kind);
  const std::vector<std::string> given = model_parameter_names(recipe.init_from);
  const std::set<std::string> names(given.begin(), given.end());
  for (const auto& entry : module.named_parameters())
    if (!names.contains(entry.key()) && !belongs_to_gate(entry.key()))
      does_not_fit(recipe.init_from, entry.key(), "absent");
}

}  // namespace

InitReport place_model(torch::nn::Module& module, ModelKind kind, const RecipeConfig& recipe,
                       const SessionPlace& place, const std::string& tokenizer_json) {
  if (place.names_only) {
    check_sources(module, kind, recipe);
    LoraConfig lora = recipe.lora;
    lora.rank = std::min<int64_t>(lora.rank, 1);
    if (lora.active()) add_adapters(module, lora, recipe.seed);
    return {};
  }
  InitReport report;
  int64_t num_new = 0;
  if (recipe.init_from.empty()) {
    init_parameters(module, recipe.seed);
    if (!recipe.init.empty()) report = take_initial_weights(module, recipe.init, tokenizer_json);
  } else {
    LoadedModel loaded = load_model_folder(recipe.init_from);
    require_kind(recipe, loaded.kind, kind);
    init_parameters(module, recipe.seed);
    num_new = copy_weights(loaded.module(), module, recipe.init_from);
  }
  if (recipe.lora.active()) {
    add_adapters(module, recipe.lora, recipe.seed);
    if (num_new > 0) free_new_gates(module, recipe.lora);
  }
  module.to(place.runtime.device(), parameter_type(recipe.precision));
  return report;
}

}  // namespace fathom
