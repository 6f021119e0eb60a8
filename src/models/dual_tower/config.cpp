#include "models/dual_tower/config.h"

namespace fathom {

void DualTowerConfig::fields(Fields& f) {
  f.group("vision", vision, "the image encoder, a Swin transformer");
  f.group("text", text, "the text encoder, a transformer");
  f("embed_dim", embed_dim, "width of the space that images and texts share", {.low = 1, .high = 1 << 14});
  f("initial_temperature", initial_temperature, "similarities are divided by this at first; it is learned",
    {.low = 0.01, .high = 100});
  f("logit_bias", logit_bias, "learn an offset of the logits (for the sigmoid loss)");
  f("initial_bias", initial_bias, "its first value", {.low = -100, .high = 100});
}

void DualTowerConfig::validate() const {
  vision.validate();
  text.validate();
}

int64_t parameter_count(const DualTowerConfig& config) {
  return parameter_count(config.vision) + parameter_count(config.text) +
         (config.vision.output_dim() + config.text.dim) * config.embed_dim + (config.logit_bias ? 2 : 1);
}

int64_t forward_flops(const DualTowerConfig& config, int64_t pairs, int64_t tokens) {
  LanguageModelConfig headless = config.text;
  headless.vocab_size = 0;
  return forward_flops(config.vision, pairs) + forward_flops(headless, pairs, tokens) +
         2 * pairs * (config.vision.output_dim() + config.text.dim) * config.embed_dim;
}

}  // namespace fathom
