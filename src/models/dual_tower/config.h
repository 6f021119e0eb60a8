// The shape of an image–text dual tower.
#pragma once

#include <cstdint>

#include "base/config.h"
#include "models/language/config.h"
#include "models/swin/config.h"

namespace fathom {

struct DualTowerConfig {
  SwinConfig vision;
  LanguageModelConfig text = {.dim = 256, .layers = 4, .heads = 4, .max_positions = 64};
  int64_t embed_dim = 256;            ///< width of the shared space
  double initial_temperature = 0.07;  ///< logits start at similarity ÷ this
  bool logit_bias = false;            ///< a learned offset, for the sigmoid loss
  double initial_bias = -10.0;

  void fields(Fields& f);
  void validate() const;
};

int64_t parameter_count(const DualTowerConfig& config);
/// Forward pass over `pairs` images and as many texts of `tokens` tokens (the text side without a head).
int64_t forward_flops(const DualTowerConfig& config, int64_t pairs, int64_t tokens);

}  // namespace fathom
