// The shape of a classifier: an encoder of one modality and a linear head.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "models/audio/config.h"
#include "models/language/config.h"
#include "models/swin/config.h"

namespace fathom {

enum class EncoderKind { kImage, kText, kAudio };

struct ClassifierConfig {
  EncoderKind encoder = EncoderKind::kAudio;
  AudioEncoderConfig audio;
  SwinConfig vision;
  LanguageModelConfig text = {.dim = 256, .layers = 4, .heads = 4, .max_positions = 128};
  std::vector<std::string> classes;  ///< empty in a recipe: those of the training data
  double head_dropout = 0.0;

  int64_t encoder_dim() const;
  void fields(Fields& f);
  void validate() const;
};

int64_t parameter_count(const ClassifierConfig& config);
/// Of one sample; `length` is its tokens (text) or frames (audio).
int64_t forward_flops(const ClassifierConfig& config, int64_t length);

}  // namespace fathom
