#include "models/swin/config.h"

#include <bit>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "nn/convolution_stem.h"

namespace fathom {

void ImagePreprocessing::fields(Fields& f) {
  f("mean", mean, "mean of each colour channel, pixels in [0, 1]");
  f("deviation", deviation, "standard deviation of each colour channel", {.low = 1e-6});
}

void ImagePreprocessing::validate() const {
  if (mean.size() != 3 || deviation.size() != 3)
    fail(ErrorKind::kConfig, "mean and deviation need three values each, got {} and {}", mean.size(),
         deviation.size());
  for (const double value : deviation)
    if (!(value > 0)) fail(ErrorKind::kConfig, "a deviation of {}, expected more than 0", value);
}

int64_t SwinConfig::stage_side(int64_t stage, int64_t image_side) const {
  int64_t side = image_side / patch_size;
  for (int64_t i = 0; i < stage; ++i) side = (side + 1) / 2;
  return side;
}

int64_t SwinConfig::num_regions() const {
  const int64_t side = stage_side(num_stages() - 1);
  return side * side;
}

void SwinConfig::fields(Fields& f) {
  const SwinPreset before = preset;
  f.choice("preset", preset, "sizes of a published model; keys beside it still override",
           {{"custom", SwinPreset::kCustom},
            {"tiny", SwinPreset::kTiny},
            {"small", SwinPreset::kSmall},
            {"base", SwinPreset::kBase}});
  if (preset != before) *this = swin_preset(preset);
  f("image_size", image_size, "side of the images in pixels", {.low = 1, .high = 1 << 14});
  f("patch_size", patch_size, "side of a patch in pixels", {.low = 1, .high = 256});
  f("dim", dim, "width of the first stage; doubles each stage", {.low = 1, .high = 1 << 14});
  f("depths", depths, "blocks of each stage", {.low = 1, .high = 1024});
  f("heads", heads, "attention heads of each stage", {.low = 1, .high = 1024});
  f("window", window, "side of an attention window in patches", {.low = 1, .high = 32});
  f("mlp_ratio", mlp_ratio, "inner width of the feed-forward layer over its width", {.low = 0.1, .high = 64});
  f("local_mixing", local_mixing,
    "side of a depthwise convolution over each block's input, odd; 0: none, as published",
    {.low = 0, .high = 31});
  f("mlp_mixing", mlp_mixing,
    "side of a depthwise convolution inside each feed-forward layer, odd; 0: none, as published",
    {.low = 0, .high = 31});
  f("convolution_stem", convolution_stem,
    "add convolutions of 3 x 3 that overlap to the projection of patches");
  f("qkv_bias", qkv_bias, "biases on query, key and value");
  f("norm_eps", norm_eps, "added to the variance in norms", {.low = 0, .high = 0.1});
  f("dropout", dropout, "share of elements dropped on residual branches", {.low = 0, .high = 0.95});
  f("drop_path", drop_path, "stochastic depth of the last block, growing from 0", {.low = 0, .high = 0.95});
  f.group("gate", gate, "which windows attend, and which tokens pass the feed-forward layers");
  f.group("preprocessing", preprocessing, "how pixels are normalised");
}

void SwinConfig::validate() const {
  if (depths.empty() || depths.size() > 8 || depths.size() != heads.size())
    fail(ErrorKind::kConfig, "depths and heads need one value a stage (1 to 8 stages), got {} and {}",
         depths.size(), heads.size());
  if (image_size % patch_size != 0)
    fail(ErrorKind::kConfig, "patch_size = {} does not divide image_size = {}", patch_size, image_size);
  for (int64_t stage = 0; stage < num_stages(); ++stage)
    if (stage_dim(stage) % heads[static_cast<size_t>(stage)] != 0)
      fail(ErrorKind::kConfig, "stage {} has width {}, which {} heads do not divide", stage, stage_dim(stage),
           heads[static_cast<size_t>(stage)]);
  for (const auto& [name, side] : {std::pair("local_mixing", local_mixing), {"mlp_mixing", mlp_mixing}})
    if (side > 0 && side % 2 == 0) fail(ErrorKind::kConfig, "{} = {}, expected 0 or an odd side", name, side);
  if (convolution_stem && (patch_size < 2 || !std::has_single_bit(static_cast<uint64_t>(patch_size))))
    fail(ErrorKind::kConfig,
         "convolution_stem halves sides, so patch_size = {} must be a power of two from 2 on", patch_size);
  if (mlp_mixing > 0 && gate.kind != GateKind::kNone && gate.part != GatedPart::kAttention)
    fail(ErrorKind::kConfig,
         "mlp_mixing needs every token of a map: gate.part = \"attention\" is what gates can do beside it");
  if (gate.is_causal() && gate.has_weights())
    fail(ErrorKind::kConfig,
         "gate.kind = \"{}\" is for tokens in order; for pictures take \"token\" or \"pooled\"",
         gate_kind_name(gate.kind));
  gate.check_layers(std::accumulate(depths.begin(), depths.end(), int64_t{0}));
  preprocessing.validate();
}

SwinConfig swin_preset(SwinPreset preset) {
  SwinConfig config;
  config.preset = preset;
  if (preset == SwinPreset::kTiny) config.drop_path = 0.2;
  if (preset == SwinPreset::kSmall || preset == SwinPreset::kBase) config.depths = {2, 2, 18, 2};
  if (preset == SwinPreset::kSmall) config.drop_path = 0.3;
  if (preset == SwinPreset::kBase) {
    config.dim = 128;
    config.heads = {4, 8, 16, 32};
    config.drop_path = 0.5;
  }
  return config;
}

namespace {

int64_t mlp_width(const SwinConfig& config, int64_t dim) {
  return static_cast<int64_t>(static_cast<double>(dim) * config.mlp_ratio);
}

/// Of a depthwise convolution, a channel.
int64_t mixing_weights(int64_t side) {
  return side > 0 ? side * side + 1 : 0;
}

int64_t block_parameters(const SwinConfig& config, int64_t dim, int64_t heads) {
  const int64_t inner = mlp_width(config, dim), span = 2 * config.window - 1;
  return 4 * dim + dim * 3 * dim + (config.qkv_bias ? 3 * dim : 0) + dim * dim + dim + span * span * heads +
         2 * dim * inner + inner + dim + mixing_weights(config.local_mixing) * dim +
         mixing_weights(config.mlp_mixing) * inner;
}

struct StemSize {
  int64_t weights = 0;
  int64_t products = 0;  ///< multiply-adds an image
};

StemSize stem_size(const SwinConfig& config) {
  StemSize size;
  int64_t in = 3, side = config.image_size;
  for (const int64_t out : ConvolutionStemImpl::widths(config.dim, config.patch_size)) {
    side /= 2;
    size.weights += 9 * in * out + out;
    size.products += side * side * 9 * in * out;
    in = out;
  }
  return size;
}

/// Of one block's gates.
int64_t gate_parameters(const SwinConfig& config, int64_t stage, int64_t block) {
  const GateConfig& gate = config.gate;
  const int64_t dim = config.stage_dim(stage), side = config.stage_side(stage);
  const int64_t places = side * side, across = (side + config.window - 1) / config.window;
  return (gate.part == GatedPart::kMlp ? 0 : gate.parameter_count(block, dim, across * across)) +
         (gate.part == GatedPart::kAttention ? 0 : gate.parameter_count(block, dim, places));
}

}  // namespace

int64_t parameter_count(const SwinConfig& config) {
  int64_t count = 3 * config.patch_size * config.patch_size * config.dim + config.dim + 2 * config.dim;
  if (config.convolution_stem) count += stem_size(config).weights;
  int64_t index = 0;
  for (int64_t stage = 0; stage < config.num_stages(); ++stage) {
    const int64_t dim = config.stage_dim(stage);
    const auto i = static_cast<size_t>(stage);
    count += config.depths[i] * block_parameters(config, dim, config.heads[i]);
    for (int64_t block = 0; block < config.depths[i]; ++block)
      count += gate_parameters(config, stage, index++);
    if (stage + 1 < config.num_stages()) count += 8 * dim + 8 * dim * dim;
  }
  return count + 2 * config.output_dim();
}

int64_t forward_flops(const SwinConfig& config, int64_t images) {
  const int64_t patches = config.stage_side(0) * config.stage_side(0);
  auto products = static_cast<double>(patches * 3 * config.patch_size * config.patch_size * config.dim);
  if (config.convolution_stem) products += static_cast<double>(stem_size(config).products);
  int64_t index = 0;
  for (int64_t stage = 0; stage < config.num_stages(); ++stage) {
    const int64_t dim = config.stage_dim(stage), side = config.stage_side(stage);
    const int64_t window = std::min(config.window, side), windows = (side + window - 1) / window;
    const int64_t padded = windows * windows * window * window;  // attention runs over padding too
    const auto attention = static_cast<double>(padded * (4 * dim * dim + 2 * dim * window * window));
    const auto mlp = static_cast<double>(side * side * 2 * dim * mlp_width(config, dim));
    const auto mixing = static_cast<double>(side * side *
                                            (dim * config.local_mixing * config.local_mixing +
                                             mlp_width(config, dim) * config.mlp_mixing * config.mlp_mixing));
    const int64_t scored = (config.gate.part == GatedPart::kMlp ? 0 : windows * windows) +
                           (config.gate.part == GatedPart::kAttention ? 0 : side * side);
    for (int64_t block = 0; block < config.depths[static_cast<size_t>(stage)]; ++block, ++index)
      products += mixing + config.gate.attention_share(index) * attention +
                  config.gate.mlp_share(index) * mlp +
                  static_cast<double>(scored * config.gate.products_a_token(index, dim));
    if (stage + 1 < config.num_stages()) {
      const int64_t next = config.stage_side(stage + 1);
      products += static_cast<double>(next * next * 8 * dim * dim);
    }
  }
  return static_cast<int64_t>(2 * static_cast<double>(images) * products);
}

}  // namespace fathom
