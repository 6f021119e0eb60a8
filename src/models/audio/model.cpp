#include "models/audio/model.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "nn/residual.h"

namespace fathom {
namespace {

/// Keeps the random streams of an audio encoder apart from those of other encoders under the same keys.
constexpr int64_t kFirstStream = int64_t{2} << 32;

BlockOptions block_options(const AudioEncoderConfig& config, int64_t layer) {
  const double output_deviation = 0.02 / std::sqrt(2.0 * static_cast<double>(config.layers));
  return {.attention = {.dim = config.dim,
                        .heads = config.heads,
                        .kv_heads = config.heads,
                        .head_dim = config.dim / config.heads,
                        .output_deviation = output_deviation},
          .mlp = {.dim = config.dim, .inner = config.mlp_size(), .output_deviation = output_deviation},
          .gate = {.config = config.gate,
                   .dim = config.dim,
                   .layer = kFirstStream + layer,
                   .index = layer,
                   .places = config.num_moments(config.max_frames) * config.groups(),
                   .map_rows = config.groups(),
                   .norm_eps = config.norm_eps},
          .norm_eps = config.norm_eps,
          .dropout = config.dropout,
          .drop_path = drop_path_at(layer, config.layers, config.drop_path),
          .layer = kFirstStream + layer};
}

}  // namespace

AudioEncoderImpl::AudioEncoderImpl(const AudioEncoderConfig& config) : config_(config) {
  config.validate();
  stem_ = register_module(
      "stem",
      SpectrogramStem(SpectrogramStemOptions{
          .channels = config.bands, .dim = config.dim, .groups = config.groups(), .stride = config.stride}));
  if (config.groups() > 1)
    sub_band_GD_ = register_parameter("sub_band", at::empty({config.groups(), config.dim}));
  blocks_ = register_module("blocks", torch::nn::ModuleList());
  for (int64_t layer = 0; layer < config.layers; ++layer)
    blocks_->push_back(Block(block_options(config, layer)));
  norm_ = register_module("norm", RMSNorm(config.dim, config.norm_eps));
  rope_ = Rope(config.num_moments(config.max_frames), config.dim / config.heads, config.rope_theta);
}

at::Tensor AudioEncoderImpl::embed(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                                   const ForwardContext& context) const {
  const auto own_dtype = norm_->parameters().front().scalar_type();
  auto x = stem_->forward(mel_BFS.to(context.compute_dtype.value_or(own_dtype)), frames_B, context);
  if (sub_band_GD_.defined()) x = x + sub_band_GD_.unsqueeze(1).to(x.scalar_type());
  return dropout(x.flatten(1, 2), config_.dropout, 2 * (kFirstStream + config_.layers), context);
}

AudioEncoderImpl::Features AudioEncoderImpl::features(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                                                      const ForwardContext& context) {
  if (mel_BFS.dim() != 3 || mel_BFS.size(1) != config_.bands || mel_BFS.size(2) > config_.max_frames)
    fail(ErrorKind::kRequest, "spectrograms must be [B, {}, at most {} frames], got [{}]", config_.bands,
         config_.max_frames, fmt::join(mel_BFS.sizes().vec(), ", "));
  const int64_t moments = stem_->num_tokens(mel_BFS.size(2)), groups = config_.groups();
  Features result;
  AttentionView view{.angles = rope_.angles(0, moments, mel_BFS.device()), .map_rows = groups};
  if (groups > 1) {  // the sub-bands of one moment stand at one position
    view.angles.cos_TF = view.angles.cos_TF.repeat({groups, 1});
    view.angles.sin_TF = view.angles.sin_TF.repeat({groups, 1});
  }
  if (frames_B.defined()) {
    const auto moments_B1 = stem_->num_tokens(frames_B).unsqueeze(1);
    result.present_BT = at::arange(moments, frames_B.options()).lt(moments_B1).repeat({1, groups});
    view.present_BT = result.present_BT;
    view.mask = result.present_BT.unsqueeze(1).unsqueeze(1);
  }
  Residual stream = {embed(mel_BFS, frames_B, context)};
  for (const auto& module : *blocks_) stream = through_block(*module->as<Block>(), stream, view, context);
  result.state_BTD = normed_sum(stream, norm_).y;
  return result;
}

at::Tensor AudioEncoderImpl::pooled(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                                    const ForwardContext& context) {
  const Features found = features(mel_BFS, frames_B, context);
  if (!found.present_BT.defined()) return found.state_BTD.mean(1);
  const auto& x_BTD = found.state_BTD;
  const auto present_BT1 = found.present_BT.unsqueeze(2);
  // A product with the mask would let NaN at padded places through; a select does not.
  const auto sum_BD = at::where(present_BT1, x_BTD, at::zeros({}, x_BTD.options())).sum(1);
  return sum_BD / present_BT1.sum(1).clamp_min(1).to(x_BTD.scalar_type());
}

void AudioEncoderImpl::initialise(ParameterInit& init) const {
  if (sub_band_GD_.defined()) init.normal("sub_band", 0.02);
}

}  // namespace fathom
