#include "train/session_model.h"

#include <torch/torch.h>

#include "base/error.h"
#include "models/lora.h"
#include "nn/init.h"

namespace fathom {
namespace {

void copy_weights(torch::nn::Module& from, torch::nn::Module& to, const std::string& source) {
  const torch::NoGradGuard no_grad;
  const auto given = from.named_parameters();
  for (auto& entry : to.named_parameters()) {
    const at::Tensor* found = given.find(entry.key());
    if (!found || found->sizes() != entry.value().sizes())
      fail(ErrorKind::kCheckpoint,
           "init_from: {}: {} is {}; the recipe's [model] must have the folder's shape", source, entry.key(),
           found ? "of another shape" : "absent");
    entry.value().copy_(*found);
  }
}

}  // namespace

InitReport place_model(torch::nn::Module& module, ModelKind kind, const RecipeConfig& recipe,
                       at::Device device, const std::string& tokenizer_json) {
  InitReport report;
  if (recipe.init_from.empty()) {
    init_parameters(module, recipe.seed);
    if (!recipe.init.empty()) report = take_initial_weights(module, recipe.init, tokenizer_json);
  } else {
    LoadedModel loaded = load_model_folder(recipe.init_from);
    if (loaded.kind != kind)
      fail(ErrorKind::kCheckpoint, "init_from: {} holds a {} model, the recipe needs a {} model",
           recipe.init_from, model_kind_name(loaded.kind), model_kind_name(kind));
    copy_weights(loaded.module(), module, recipe.init_from);
  }
  if (recipe.lora.active()) add_adapters(module, recipe.lora, recipe.seed);
  module.to(device, parameter_type(recipe.precision));
  return report;
}

}  // namespace fathom
