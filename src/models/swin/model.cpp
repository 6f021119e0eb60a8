#include "models/swin/model.h"

#include <ATen/ATen.h>

#include <numeric>

#include "nn/residual.h"
#include "nn/swin_block.h"

namespace fathom {
namespace {

/// Keeps the random streams of an image encoder apart from those of a text encoder under the same keys.
constexpr int64_t kFirstStream = int64_t{1} << 32;

std::vector<SwinBlockOptions> stage_options(const SwinConfig& config, int64_t stage, int64_t first_layer) {
  const auto i = static_cast<size_t>(stage);
  const int64_t layers = std::accumulate(config.depths.begin(), config.depths.end(), int64_t{0});
  std::vector<SwinBlockOptions> blocks;
  for (int64_t block = 0; block < config.depths[i]; ++block)
    blocks.push_back({.dim = config.stage_dim(stage),
                      .heads = config.heads[i],
                      .window = config.window,
                      .shifted = SwinConfig::shifts(block),
                      .mlp_ratio = config.mlp_ratio,
                      .local_mixing = config.local_mixing,
                      .mlp_mixing = config.mlp_mixing,
                      .qkv_bias = config.qkv_bias,
                      .norm_eps = config.norm_eps,
                      .dropout = config.dropout,
                      .drop_path = drop_path_at(first_layer + block, layers, config.drop_path),
                      .layer = kFirstStream + first_layer + block,
                      .gate = config.gate,
                      .index = first_layer + block,
                      .map_places = config.stage_side(stage) * config.stage_side(stage)});
  return blocks;
}

/// The pictures with 0, their mean, where `mask_BRC` is true of a patch.
at::Tensor without_patches(const at::Tensor& image_BCHW, const at::Tensor& mask_BRC, int64_t patch) {
  const at::Tensor hidden_BHW = mask_BRC.repeat_interleave(patch, 1).repeat_interleave(patch, 2);
  return image_BCHW.masked_fill(hidden_BHW.unsqueeze(1), 0);
}

}  // namespace

SwinImpl::SwinImpl(const SwinConfig& config) : config_(config) {
  config.validate();
  patch_embed_ =
      register_module("patch_embed", PatchEmbed(PatchEmbedOptions{.patch = config.patch_size,
                                                                  .dim = config.dim,
                                                                  .convolutions = config.convolution_stem,
                                                                  .norm_eps = config.norm_eps}));
  stages_ = register_module("stages", torch::nn::ModuleList());
  int64_t layer = 0;
  for (int64_t stage = 0; stage < config.num_stages(); ++stage) {
    stages_->push_back(SwinStage(stage_options(config, stage, layer), stage + 1 < config.num_stages()));
    layer += config.depths[static_cast<size_t>(stage)];
  }
  norm_ = register_module("norm", LayerNorm(config.output_dim(), config.norm_eps));
}

at::Tensor SwinImpl::embed_patches(const at::Tensor& image_BCHW, const ForwardContext& context) {
  const auto own_dtype = patch_embed_->parameters(/*recurse=*/false).front().scalar_type();
  return patch_embed_(image_BCHW.to(context.compute_dtype.value_or(own_dtype)), context);
}

at::Tensor SwinImpl::run_stages(const at::Tensor& x, const ForwardContext& context) {
  Residual stream = {x};
  for (const auto& module : *stages_) stream = module->as<SwinStage>()->forward(stream.sum(), context);
  return normed_sum(stream, norm_).y.flatten(1, 2);
}

at::Tensor SwinImpl::features(const at::Tensor& image_BCHW, const ForwardContext& context) {
  return run_stages(embed_patches(image_BCHW, context), context);
}

at::Tensor SwinImpl::masked_features(const at::Tensor& image_BCHW, const at::Tensor& mask_BRC,
                                     const at::Tensor& token_D, const ForwardContext& context) {
  // Convolutions that overlap would show the edges of what is hidden to patches beside it.
  const at::Tensor shown_BCHW =
      config_.convolution_stem ? without_patches(image_BCHW, mask_BRC, config_.patch_size) : image_BCHW;
  const at::Tensor x = embed_patches(shown_BCHW, context);
  return run_stages(at::where(mask_BRC.unsqueeze(3), token_D.to(x.scalar_type()), x), context);
}

at::Tensor SwinImpl::forward(const at::Tensor& image_BCHW, const ForwardContext& context) {
  return features(image_BCHW, context).mean(1);
}

}  // namespace fathom
