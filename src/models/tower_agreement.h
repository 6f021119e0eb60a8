// A model folder says the shape of its towers twice: in fathom.json, which counts, and in each tower's own
// config.json, which other programs read.
#pragma once

#include <string>

#include "models/audio/config.h"
#include "models/language/config.h"
#include "models/swin/config.h"

namespace fathom {

/// Errors (kCheckpoint): FOLDER/config.json (for pictures preprocessor_config.json too) says otherwise than
/// `config`, which stands in `record_path`; the message names key and values. A key that is absent, null or
/// unknown says nothing, nor does an absent file.
void require_agreement(const std::string& folder, const LanguageModelConfig& config,
                       const std::string& record_path);
void require_agreement(const std::string& folder, const SwinConfig& config, const std::string& record_path);
void require_agreement(const std::string& folder, const AudioEncoderConfig& config,
                       const std::string& record_path);

}  // namespace fathom
