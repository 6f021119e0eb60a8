#include "models/narrowed.h"

#include <algorithm>
#include <utility>

namespace fathom {
namespace {

constexpr int64_t kRotated = 2;  // rotary positions turn pairs

}  // namespace

LanguageModelConfig narrowed(LanguageModelConfig config) {
  config.vocab_size = 1;
  config.dim = config.head_dim = kRotated;
  config.heads = config.kv_heads = config.mlp_dim = 1;
  config.max_positions = 1;
  config.gate.inner = 1;
  return config;
}

SwinConfig narrowed(SwinConfig config) {
  if (!config.convolution_stem) config.patch_size = 1;  // it has a convolution for each halving
  config.image_size = config.patch_size;
  config.window = 1;
  config.dim = 1;  // still doubles each stage
  std::fill(config.heads.begin(), config.heads.end(), 1);
  config.mlp_ratio = 1;
  config.gate.inner = 1;
  return config;
}

AudioEncoderConfig narrowed(AudioEncoderConfig config) {
  config.bands = config.groups();
  config.dim = kRotated;
  config.heads = config.mlp_dim = 1;
  config.max_frames = 1;
  config.gate.inner = 1;
  return config;
}

DualTowerConfig narrowed(DualTowerConfig config) {
  config.vision = narrowed(std::move(config.vision));
  config.text = narrowed(config.text);
  config.audio = narrowed(config.audio);
  config.embed_dim = 1;
  config.adapters = std::min<int64_t>(config.adapters, 1);
  return config;
}

FusionConfig narrowed(FusionConfig config) {
  config.vision = narrowed(std::move(config.vision));
  config.text = narrowed(config.text);
  config.adapter_dim = std::min<int64_t>(config.adapter_dim, 1);
  config.region_positions = PlaceCode::kLearned;  // sines and cosines need a width
  config.memory_slots = config.cross_heads = config.cross_head_dim = 1;
  return config;
}

ClassifierConfig narrowed(ClassifierConfig config) {
  config.vision = narrowed(std::move(config.vision));
  config.text = narrowed(config.text);
  config.audio = narrowed(config.audio);
  return config;
}

}  // namespace fathom
