// Where things lie in a model folder, and how its JSON is read.
#pragma once

#include <torch/nn/module.h>

#include <string>

#include "base/json.h"
#include "models/classifier/config.h"
#include "models/weight_map.h"

namespace fathom {

/// An audio encoder's config.json is ours: our configuration under our own name for the architecture.
constexpr const char* kAudioType = "fathom_audio";

/// FOLDER/NAME.
std::string path_in(const std::string& folder, const char* name);
/// The content of a file. Errors (kCheckpoint): no file, no JSON.
Json read_checkpoint_json(const std::string& path);
/// Where a classifier's encoder lies: "vision", "text" or "audio".
const char* encoder_folder(EncoderKind kind);
/// What an encoder or a language model keeps in its folder's fathom.safetensors: what it has beside the
/// published parts.
WeightMap additions_map(const torch::nn::Module& model);
/// What a model keeps outside its encoders, by our own names.
WeightMap bridge_map(const torch::nn::Module& model);

}  // namespace fathom
