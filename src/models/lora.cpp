#include "models/lora.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/name_pattern.h"

namespace fathom {
namespace {

bool fits_any(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches(pattern, name); });
}

template <typename Items>
std::vector<std::string> names_of(const Items& items) {
  std::vector<std::string> names;
  for (const auto& [name, item] : items) names.push_back(name);
  return names;
}

}  // namespace

void LoraConfig::fields(Fields& f) {
  f("rank", rank, "rank of the adapters on linear layers, everything else frozen; 0 trains the whole model",
    {.low = 0, .high = 4096});
  f("alpha", alpha, "what an adapter adds is scaled by alpha / rank", {.low = 0});
  f("dropout", dropout, "share of an adapter's input that is dropped in training", {.low = 0, .high = 0.95});
  f("patterns", patterns, "names of the linear layers that get one; * stands for any characters");
  f("also_train", also_train, "patterns of parameters that are trained as well (save = \"merged\" only)");
  f.choice("save", save, "keep whole models with the adapters added, or folders of the adapters alone",
           {{"merged", AdapterSaving::kMerged}, {"adapter", AdapterSaving::kAdapter}});
}

void LoraConfig::validate() const {
  if (!active()) return;
  if (patterns.empty()) fail(ErrorKind::kConfig, "rank is {}, but there are no patterns", rank);
  if (save == AdapterSaving::kAdapter && !also_train.empty())
    fail(ErrorKind::kConfig, "also_train: an adapter folder has no place for other parameters");
}

std::vector<std::pair<std::string, LinearImpl*>> linear_layers(torch::nn::Module& module) {
  std::vector<std::pair<std::string, LinearImpl*>> layers;
  for (const auto& item : module.named_modules())
    if (auto* linear = dynamic_cast<LinearImpl*>(item.value().get())) layers.emplace_back(item.key(), linear);
  return layers;
}

int64_t adapter_stream(const std::string& layer) {
  const uint64_t key = checksum64(std::as_bytes(std::span(layer)));
  return static_cast<int64_t>((key >> 3) | (uint64_t{1} << 60));
}

int64_t add_adapters(torch::nn::Module& module, const LoraConfig& config, int64_t seed) {
  const auto layers = linear_layers(module);
  for (const std::string& pattern : config.patterns)
    require_match(pattern, names_of(layers), "lora.patterns", "linear layer");
  const at::NoGradGuard no_grad;
  const auto frozen = module.named_parameters();
  const std::vector<std::string> names = frozen.keys();
  for (const std::string& pattern : config.also_train) require_match(pattern, names, "lora.also_train");
  for (const auto& item : frozen)
    if (!fits_any(config.also_train, item.key())) at::Tensor(item.value()).set_requires_grad(false);
  int64_t count = 0;
  for (const auto& [name, layer] : layers) {
    if (!fits_any(config.patterns, name)) continue;
    Lora adapter = layer->add_adapter("default", {.rank = config.rank,
                                                  .alpha = config.alpha,
                                                  .dropout = config.dropout,
                                                  .stream = adapter_stream(name)});
    ParameterInit init(*adapter, name + ".lora_default", seed);
    adapter->initialise(init);
    ++count;
  }
  return count;
}

bool has_adapters(torch::nn::Module& module) {
  const auto layers = linear_layers(module);
  return std::any_of(layers.begin(), layers.end(),
                     [](const auto& layer) { return !layer.second->adapters().empty(); });
}

void merge_adapters(torch::nn::Module& module) {
  for (const auto& [name, layer] : linear_layers(module)) layer->merge_adapters();
}

void weigh_adapters(torch::nn::Module& module, const std::string& name, double weight) {
  std::set<std::string> known;
  for (const auto& [layer_name, layer] : linear_layers(module)) {
    for (const auto& [adapter_name, adapter] : layer->adapters()) {
      known.insert(adapter_name);
      if (adapter_name == name) Lora(adapter)->set_weight(weight);
    }
  }
  if (!known.contains(name))
    fail(ErrorKind::kConfig, "no adapter \"{}\"; there are: {}", name, fmt::join(known, ", "));
}

MergedWeights::MergedWeights(torch::nn::Module& module) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, layer] : linear_layers(module)) {
    if (layer->adapters().empty()) continue;
    at::Tensor weight = layer->weight().detach();
    kept_.emplace_back(weight, weight.clone());
    for (const auto& [adapter_name, adapter] : layer->adapters())
      if (adapter->weight() != 0) weight.add_(adapter->delta());
  }
}

MergedWeights::~MergedWeights() {
  const at::NoGradGuard no_grad;
  for (auto& [weight, former] : kept_) weight.copy_(former);
}

}  // namespace fathom
