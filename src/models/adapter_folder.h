// Adapters on disk as the `peft` package keeps them: adapter_config.json and adapter_model.safetensors. What
// is one layer here and several there (query, key and value) becomes one adapter for each part, all with the
// same A; read back, parts with different A are stacked into one adapter of their ranks' sum.
#pragma once

#include <torch/nn/module.h>

#include <string>

#include "base/json.h"
#include "models/weight_map.h"

namespace fathom {

/// Where an adapter came from, beside its weights.
struct AdapterOrigin {
  std::string base;        ///< folder of the model it belongs to, or empty
  bool causal_lm = false;  ///< whether that is a language model, for other programs
};

/// Writes both files into `folder`, which exists, from the adapters called `name`. `map`: foreign names of
/// the model's weights. Errors (kInternal): no layer has such an adapter; kData: a full disk.
void write_adapters(const std::string& folder, torch::nn::Module& module, const WeightMap& map,
                    const AdapterOrigin& origin, const std::string& name = "default");

/// Whether `folder` holds adapters.
bool is_adapter_folder(const std::string& folder);
/// The folder of the model that adapters were trained on, absolute; empty where the folder does not say.
/// Errors (kCheckpoint): a broken adapter_config.json.
std::string adapter_base(const std::string& folder);

/// Gives `module` the adapters of `folder` under `name`, with weight 1, after those it has. Errors
/// (kCheckpoint): another kind of adapter (named), layers the model lacks, shapes that do not fit; nothing
/// has been added then.
void read_adapters(torch::nn::Module& module, const WeightMap& map, const std::string& folder,
                   const std::string& name);

}  // namespace fathom
