#include "models/dual_tower/config.h"

namespace fathom {

void DualTowerConfig::fields(Fields& f) {
  f.group("vision", vision, "the image encoder, a Swin transformer");
  f.group("text", text, "the text encoder, a transformer");
  f("audio_tower", audio_tower, "a third tower: sounds in the same space as pictures and texts");
  f.group("audio", audio, "its audio encoder");
  f("embed_dim", embed_dim, "width of the space that pictures, texts and sounds share",
    {.low = 1, .high = 1 << 14});
  f("initial_temperature", initial_temperature, "similarities are divided by this at first; it is learned",
    {.low = 0.01, .high = 100});
  f("logit_bias", logit_bias, "learn an offset of the logits (for the sigmoid loss)");
  f("initial_bias", initial_bias, "its first value", {.low = -100, .high = 100});
  f.choice(
      "region", region,
      "a second score of a pair, from tokens and image regions: pooled by their attention to each other, or "
      "each token with its best region",
      {{"none", RegionScore::kNone}, {"attention", RegionScore::kAttention}, {"late", RegionScore::kLate}});
  f("adapters", adapters,
    "width of the bottleneck of a residual adapter on each tower's output, before the projections; 0 for "
    "none",
    {.low = 0, .high = 1 << 14});
  f("mirrored", mirrored,
    "in evaluation and service take the mean of a picture's features and those of its mirror image");
  f("centred", centred,
    "take each modality's median, measured on training data, off its embeddings when the model is evaluated "
    "and "
    "saved, so that no direction of the shared space tells modalities apart");
}

void DualTowerConfig::validate() const {
  vision.validate();
  text.validate();
  if (audio_tower) audio.validate();
}

namespace {

int64_t adapter_products(int64_t dim, int64_t bottleneck) {
  return 2 * dim * bottleneck;
}

int64_t adapter_parameters(int64_t dim, int64_t bottleneck) {
  return bottleneck > 0 ? adapter_products(dim, bottleneck) + dim + bottleneck : 0;
}

/// Projections of a token or a region.
int64_t part_products(const DualTowerConfig& config, int64_t dim) {
  if (config.region == RegionScore::kNone) return 0;
  return dim * config.embed_dim * (config.region == RegionScore::kAttention ? 2 : 1);
}

int64_t audio_parameters(const DualTowerConfig& config) {
  if (!config.audio_tower) return 0;
  return parameter_count(config.audio) + config.audio.dim * config.embed_dim +
         adapter_parameters(config.audio.dim, config.adapters);
}

}  // namespace

int64_t parameter_count(const DualTowerConfig& config) {
  const int64_t vision = config.vision.output_dim(), text = config.text.dim;
  const int64_t scales = (config.logit_bias ? 2 : 1) * (config.region == RegionScore::kNone ? 1 : 2);
  return parameter_count(config.vision) + parameter_count(config.text) + (vision + text) * config.embed_dim +
         scales + part_products(config, vision) + part_products(config, text) +
         adapter_parameters(vision, config.adapters) + adapter_parameters(text, config.adapters) +
         audio_parameters(config) + (config.centred ? (config.audio_tower ? 3 : 2) * config.embed_dim : 0);
}

int64_t forward_flops(const DualTowerConfig& config, int64_t pairs, int64_t tokens) {
  LanguageModelConfig headless = config.text;
  headless.vocab_size = 0;
  const int64_t vision = config.vision.output_dim(), text = config.text.dim;
  const int64_t parts =
      config.vision.num_regions() * part_products(config, vision) + tokens * part_products(config, text);
  // With region scores the adapters see every part beside the pooled whole.
  const int64_t regions = config.region == RegionScore::kNone ? 0 : config.vision.num_regions();
  const int64_t states = config.region == RegionScore::kNone ? 0 : tokens;
  const int64_t adapters = (1 + regions) * adapter_products(vision, config.adapters) +
                           (1 + states) * adapter_products(text, config.adapters);
  return forward_flops(config.vision, pairs) + forward_flops(headless, pairs, tokens) +
         2 * pairs * ((vision + text) * config.embed_dim + parts + adapters);
}

int64_t sound_flops(const DualTowerConfig& config, int64_t clips, int64_t frames) {
  if (!config.audio_tower) return 0;
  const int64_t bridge =
      config.audio.dim * config.embed_dim + adapter_products(config.audio.dim, config.adapters);
  return forward_flops(config.audio, clips, frames) + 2 * clips * bridge;
}

}  // namespace fathom
