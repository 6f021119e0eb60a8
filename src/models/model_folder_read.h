// What model folders are read by, a kind of model each.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "models/model_folder.h"

namespace fathom {

LanguageModel read_language(const std::string& folder, const LoadOptions& options);
Swin read_vision(const std::string& folder, const LoadOptions& options);
AudioEncoder read_audio(const std::string& folder, const LoadOptions& options);

/// `record`: fathom.json's content, in which their shape stands; the towers' folders must not contradict it.
/// Errors (kCheckpoint): as `load_model_folder`.
DualTower read_dual_tower(const std::string& folder, const Json& record, const LoadOptions& options);
/// The shape alone.
DualTowerConfig dual_tower_config(const std::string& folder, const Json& record);
Fusion read_fusion(const std::string& folder, const Json& record, const LoadOptions& options);
Classifier read_classifier(const std::string& folder, const Json& record, const LoadOptions& options);

/// Names of the parameters of the model of `kind` in `folder`, without its weights.
std::vector<std::string> parameter_names(ModelKind kind, const std::string& folder, const Json& record);

}  // namespace fathom
