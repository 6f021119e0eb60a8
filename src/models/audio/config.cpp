#include "models/audio/config.h"

#include "base/error.h"

namespace fathom {

void AudioEncoderConfig::fields(Fields& f) {
  f.choice("front_end", front_end, "all mel bands of a moment as one token, or sub-bands with a token each",
           {{"mel", AudioFrontEnd::kMel}, {"sub_bands", AudioFrontEnd::kSubBands}});
  f("bands", bands, "mel bands of the spectrogram", {.low = 1, .high = 1024});
  f("sub_bands", sub_bands, "parts that the bands are split into (sub_bands)", {.low = 1, .high = 128});
  f("stride", stride, "frames (10 ms each) from one token to the next", {.low = 1, .high = 64});
  f("dim", dim, "model width", {.low = 1, .high = 1 << 16});
  f("layers", layers, "number of blocks", {.low = 1, .high = 1024});
  f("heads", heads, "attention heads", {.low = 1, .high = 1024});
  f("mlp_dim", mlp_dim, "inner width of the feed-forward layer (0: 8/3 of dim, in steps of 64)",
    {.low = 0, .high = 1 << 18});
  f("max_frames", max_frames, "longest clip in frames", {.low = 1, .high = 1 << 22});
  f("rope_theta", rope_theta, "base of the rotary frequencies", {.low = 1});
  f("norm_eps", norm_eps, "added to the mean square in norms", {.low = 0, .high = 0.1});
  f("dropout", dropout, "share of elements dropped after the stem and on residual branches",
    {.low = 0, .high = 0.95});
  f("drop_path", drop_path, "stochastic depth of the last block, growing from 0", {.low = 0, .high = 0.95});
  f.group("gate", gate, "which tokens each block computes");
}

void AudioEncoderConfig::validate() const {
  if (dim % heads != 0) fail(ErrorKind::kConfig, "dim = {} cannot be divided among heads = {}", dim, heads);
  if (dim / heads % 2 != 0)
    fail(ErrorKind::kConfig,
         "heads of width {} are odd, but rotary positions turn pairs: change dim or heads", dim / heads);
  if (bands % groups() != 0)
    fail(ErrorKind::kConfig, "bands = {} cannot be split into sub_bands = {}", bands, sub_bands);
  gate.check_layers(layers);
}

int64_t parameter_count(const AudioEncoderConfig& config) {
  const int64_t dim = config.dim, wide = config.groups() * dim;
  const int64_t stem = 3 * wide * (config.bands / config.groups() + dim) + 2 * wide;
  const int64_t block = 4 * dim * dim + 3 * dim * config.mlp_size() + 2 * dim;
  const int64_t places = config.num_moments(config.max_frames) * config.groups();
  int64_t gates = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer)
    gates += config.gate.parameter_count(layer, dim, places);
  return stem + (config.groups() > 1 ? wide : 0) + config.layers * block + gates + dim;
}

int64_t forward_flops(const AudioEncoderConfig& config, int64_t clips, int64_t frames) {
  const int64_t dim = config.dim, moments = config.num_moments(frames), tokens = moments * config.groups();
  const int64_t stem =
      3 * config.groups() * dim * (frames * (config.bands / config.groups()) + moments * dim);
  double token = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const double attends = config.gate.attention_share(layer);
    token += attends * static_cast<double>(4 * dim * dim) +
             attends * attends * static_cast<double>(2 * dim * tokens) +
             config.gate.mlp_share(layer) * static_cast<double>(3 * dim * config.mlp_size()) +
             static_cast<double>(config.gate.products_a_token(layer, dim));
  }
  return static_cast<int64_t>(2 * static_cast<double>(clips) *
                              (static_cast<double>(stem) + static_cast<double>(tokens) * token));
}

}  // namespace fathom
