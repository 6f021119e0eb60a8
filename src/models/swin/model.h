// Swin transformer v1, an image encoder. Source: Liu et al., "Swin Transformer: hierarchical vision
// transformer using shifted windows", ICCV 2021. B batch, C channels, P regions, D width of the last stage.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include "models/swin/config.h"
#include "nn/forward_context.h"
#include "nn/norm.h"
#include "nn/patch.h"

namespace fathom {

class SwinImpl : public torch::nn::Module {
 public:
  /// Parameters are uninitialised: call `init_parameters` or load a checkpoint. Errors (kConfig) as
  /// `SwinConfig::validate`.
  explicit SwinImpl(const SwinConfig& config);

  /// Region features after the last norm, row by row: [B, P, D]. `image_BCHW` is normalised; its sides may
  /// differ from `image_size` as long as patches divide them.
  at::Tensor features(const at::Tensor& image_BCHW, const ForwardContext& context = {});
  /// The same where `mask_BRC` (bool, patches by row and column) is true of a patch, whose embedding
  /// `token_D` then takes the place of. Nothing of its pixels is seen, by other patches either.
  at::Tensor masked_features(const at::Tensor& image_BCHW, const at::Tensor& mask_BRC,
                             const at::Tensor& token_D, const ForwardContext& context = {});
  /// Mean of the regions: [B, D].
  at::Tensor forward(const at::Tensor& image_BCHW, const ForwardContext& context = {});

  const SwinConfig& config() const { return config_; }

 private:
  at::Tensor embed_patches(const at::Tensor& image_BCHW, const ForwardContext& context);
  at::Tensor run_stages(const at::Tensor& x, const ForwardContext& context);

  SwinConfig config_;
  PatchEmbed patch_embed_{nullptr};
  torch::nn::ModuleList stages_;
  LayerNorm norm_{nullptr};
};
TORCH_MODULE(Swin);

}  // namespace fathom
