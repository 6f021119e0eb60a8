// The entry of a picture encoder as convolutions that overlap. Source: Xiao et al., "Early convolutions help
// transformers see better", NeurIPS 2021. B batch, C channels, D width.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <vector>

#include "nn/forward_context.h"
#include "nn/init.h"

namespace fathom {

/// Convolutions of 3 × 3 with a stride of 2, GELU between them.
class ConvolutionStemImpl : public torch::nn::Module, public HasInitialValues {
 public:
  /// `patch`: what the sides are divided by, a power of two above 1.
  ConvolutionStemImpl(int64_t channels, int64_t dim, int64_t patch);
  /// [B, C, height, width] → [B, height/patch, width/patch, D].
  at::Tensor forward(const at::Tensor& image_BCHW, const ForwardContext& context = {}) const;
  void initialise(ParameterInit& init) const override;

  /// Widths of the convolutions: they double up to `dim`.
  static std::vector<int64_t> widths(int64_t dim, int64_t patch);

 private:
  std::vector<at::Tensor> weight_;  ///< [out, in, 3, 3] each
  std::vector<at::Tensor> bias_;
};
TORCH_MODULE(ConvolutionStem);

}  // namespace fathom
