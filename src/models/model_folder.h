// A whole model on disk. A language model or an image encoder alone is a Hugging Face folder (config.json,
// model.safetensors); a dual tower is `text/` and `vision/`, each such a folder, with what has no foreign
// home in `fathom.safetensors`; a classifier likewise, with the one encoder it has. `fathom.json` is our
// record, tokenizer.json lies at the top and in `text/`.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

#include "base/json.h"
#include "models/audio/model.h"
#include "models/classifier/model.h"
#include "models/dual_tower/model.h"
#include "models/language/model.h"
#include "models/swin/model.h"

namespace fathom {

enum class ModelKind { kLanguage, kSwin, kDualTower, kAudio, kClassifier };
const char* model_kind_name(ModelKind kind);  ///< "language", "swin", "dual_tower", "audio", "classifier"

/// What a model folder carries beside weights.
struct ModelExtras {
  std::string tokenizer_json;    ///< the text of tokenizer.json; empty: none
  Json record = Json::object();  ///< kept in fathom.json under "record": data settings, training summary
};

/// What was found in a folder; the member that `kind` names is set, the others are empty holders.
struct LoadedModel {
  ModelKind kind = ModelKind::kLanguage;
  LanguageModel language{nullptr};
  Swin vision{nullptr};
  DualTower dual_tower{nullptr};
  AudioEncoder audio{nullptr};
  Classifier classifier{nullptr};
  ModelExtras extras;
};

struct LoadOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
};

/// Kind of the model in `path`, from fathom.json or else config.json. Errors (kCheckpoint): no such folder,
/// no model in it, an architecture that is not ours (named).
ModelKind model_kind(const std::string& path);

/// Errors (kCheckpoint): as `model_kind`; weights whose names or shapes do not all match (they are listed).
LoadedModel load_model_folder(const std::string& path, const LoadOptions& options = {});

/// Writes beside, syncs, renames: `path` is the old folder or the new one, never half of one.
void save_model_folder(const std::string& path, LanguageModel model, const ModelExtras& extras = {});
void save_model_folder(const std::string& path, Swin model, const ModelExtras& extras = {});
void save_model_folder(const std::string& path, DualTower model, const ModelExtras& extras = {});
void save_model_folder(const std::string& path, AudioEncoder model, const ModelExtras& extras = {});
void save_model_folder(const std::string& path, Classifier model, const ModelExtras& extras = {});

}  // namespace fathom
