// Foreign names for Swin: Hugging Face's (read and written) and timm's (read).
#pragma once

#include <string>

#include "base/json.h"
#include "models/swin/config.h"
#include "models/weight_map.h"

namespace fathom {

/// Reads config.json's content; `source` names it in errors. Errors (kCheckpoint): another architecture, an
/// activation other than GELU, absolute positions, sizes out of range.
SwinConfig swin_config_from_hf(const Json& json, const std::string& source);
Json swin_config_to_hf(const SwinConfig& config);

/// preprocessor_config.json, for Hugging Face's image processors.
Json preprocessing_to_hf(const SwinConfig& config);
/// Takes over what a preprocessor_config.json says of mean and deviation; `source` names it in errors. Errors
/// (kCheckpoint): values that are no lists of three numbers, a deviation that is not positive.
void read_preprocessing(const Json& json, const std::string& source, ImagePreprocessing& preprocessing);

/// `prefix`: "" as saved from SwinModel, "swin." from SwinForImageClassification.
WeightMap swin_weight_map_hf(const SwinConfig& config, const std::string& prefix = "");
/// timm 1.0's names; merging belongs to the stage that follows it.
WeightMap swin_weight_map_timm(const SwinConfig& config);

/// The map whose names these tensors use.
WeightMap swin_weight_map_for(const SwinConfig& config, const WeightFiles& files);
/// Index and mask buffers, and classifier heads.
bool swin_ignores(const std::string& name);

}  // namespace fathom
