// The shape of a dual tower of pictures and texts, which may have a third tower for sounds.
#pragma once

#include <cstdint>

#include "base/config.h"
#include "models/audio/config.h"
#include "models/language/config.h"
#include "models/swin/config.h"
#include "nn/modal_attention.h"

namespace fathom {

struct DualTowerConfig {
  SwinConfig vision;
  LanguageModelConfig text = {.dim = 256, .layers = 4, .heads = 4, .max_positions = 64};
  bool audio_tower = false;  ///< a third tower, `audio`
  AudioEncoderConfig audio;
  int64_t embed_dim = 256;            ///< width of the shared space
  double initial_temperature = 0.07;  ///< logits start at similarity ÷ this
  bool logit_bias = false;            ///< a learned offset, for the sigmoid loss
  double initial_bias = -10.0;
  RegionScore region = RegionScore::kNone;  ///< scores by tokens and regions, beside the global one
  int64_t adapters = 0;                     ///< width of the bottleneck before the projections; 0: none
  bool mirrored = false;  ///< what is not trained sees a picture and its mirror image, and takes their mean
  bool centred = false;   ///< each modality's own mean is taken off its embeddings

  void fields(Fields& f);
  void validate() const;
};

int64_t parameter_count(const DualTowerConfig& config);
/// Forward pass over `pairs` images and as many texts of `tokens` tokens (the text side without a head).
int64_t forward_flops(const DualTowerConfig& config, int64_t pairs, int64_t tokens);
/// … and over `clips` of `frames` in the third tower.
int64_t sound_flops(const DualTowerConfig& config, int64_t clips, int64_t frames);

}  // namespace fathom
