// A whole model on disk. A language model or an image encoder alone is a Hugging Face folder (config.json,
// model.safetensors); a dual tower or a fusion model is `text/` and `vision/`, each such a folder (and
// `audio/`, ours, where it hears), with what has no foreign home in `fathom.safetensors`; a classifier
// likewise, with the one encoder it has. `fathom.json` is our record, tokenizer.json lies at the top and in
// `text/`. A folder of adapters alone (models/adapter_folder.h) names the folder of the model they belong to.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>
#include <vector>

#include "base/json.h"
#include "models/audio/model.h"
#include "models/classifier/model.h"
#include "models/dual_tower/model.h"
#include "models/fusion/model.h"
#include "models/language/model.h"
#include "models/swin/model.h"
#include "models/weight_map.h"

namespace fathom {

enum class ModelKind { kLanguage, kSwin, kDualTower, kFusion, kAudio, kClassifier };
/// "language", "swin", "dual_tower", "fusion", "audio", "classifier"
const char* model_kind_name(ModelKind kind);

/// What a model folder carries beside weights.
struct ModelExtras {
  std::string tokenizer_json;    ///< the text of tokenizer.json; empty: none
  Json record = Json::object();  ///< kept in fathom.json under "record": data settings, training summary
  /// Where the model's adapters alone are to be kept: the folder of the model they belong to.
  std::string adapter_base = {};
};

/// What was found in a folder; the member that `kind` names is set, the others are empty holders.
struct LoadedModel {
  ModelKind kind = ModelKind::kLanguage;
  LanguageModel language{nullptr};
  Swin vision{nullptr};
  DualTower dual_tower{nullptr};
  Fusion fusion{nullptr};
  AudioEncoder audio{nullptr};
  Classifier classifier{nullptr};
  ModelExtras extras;

  torch::nn::Module& module();
  /// Foreign names of its weights: those of an adapter folder.
  WeightMap foreign_names();
};

struct LoadOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
};

/// Kind of the model in `path`, from fathom.json or else config.json. Errors (kCheckpoint): no such folder,
/// no model in it, an architecture that is not ours (named).
ModelKind model_kind(const std::string& path);

/// Names of the parameters of the model in `path` (of adapters: of the model they belong to), by its
/// configuration alone: no weights are read. Errors (kCheckpoint): as `model_kind`; a broken configuration.
std::vector<std::string> model_parameter_names(const std::string& path);

/// The shape of the dual tower in `path`, likewise. Errors (kCheckpoint): the same; a model of another kind.
DualTowerConfig dual_tower_shape(const std::string& path);

/// A folder of adapters gives the model they belong to, with them added to its weights. Errors (kCheckpoint):
/// as `model_kind`; weights whose names or shapes do not all match (they are listed); a tower
/// whose own config.json contradicts fathom.json; adapters whose model is not where they say.
LoadedModel load_model_folder(const std::string& path, const LoadOptions& options = {});

/// Gives a loaded model the adapters of a folder, by a name of their own and with a weight. Errors
/// (kCheckpoint): as `read_adapters`.
void add_adapter_folder(LoadedModel& loaded, const std::string& folder, const std::string& name,
                        double weight);

/// Writes beside, syncs, renames: `path` is the old folder or the new one, never half of one. Adapters are
/// added to the weights, or kept alone where `extras.adapter_base` says so; the model stays as it is.
void save_model_folder(const std::string& path, LanguageModel model, const ModelExtras& extras = {});
void save_model_folder(const std::string& path, Swin model, const ModelExtras& extras = {});
void save_model_folder(const std::string& path, DualTower model, const ModelExtras& extras = {});
void save_model_folder(const std::string& path, Fusion model, const ModelExtras& extras = {});
void save_model_folder(const std::string& path, AudioEncoder model, const ModelExtras& extras = {});
void save_model_folder(const std::string& path, Classifier model, const ModelExtras& extras = {});

}  // namespace fathom
