// Images into patches, and patches into fewer, wider ones. Source: Liu et al., "Swin Transformer", 2021,
// section 3.1. B batch, C channels, D width.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/convolution_stem.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/residual.h"

namespace fathom {

struct PatchEmbedOptions {
  int64_t channels = 3;
  int64_t patch = 4;
  int64_t dim = 96;
  bool convolutions = false;  ///< `patch` must be a power of two
  double norm_eps = 1e-5;
};

/// norm(W · patch + b): a convolution whose stride is its size, done as one matrix product; with
/// `convolutions` norm(W · patch + b + ConvolutionStem(image)).
class PatchEmbedImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit PatchEmbedImpl(const PatchEmbedOptions& options);
  /// [B, C, height, width] → [B, height/patch, width/patch, D]. Errors (kRequest): sides that patches do not
  /// divide, another number of channels.
  at::Tensor forward(const at::Tensor& image_BCHW, const ForwardContext& context = {});
  void initialise(ParameterInit& init) const override;

 private:
  PatchEmbedOptions options_;
  at::Tensor weight_;  ///< [D, C, patch, patch]
  at::Tensor bias_;
  ConvolutionStem convolution_stem_{nullptr};
  LayerNorm norm_{nullptr};
};
TORCH_MODULE(PatchEmbed);

/// Four neighbours (by column, then row: upper left, lower left, upper right, lower right) side by side,
/// normalised, then reduced to twice the width.
class PatchMergingImpl : public torch::nn::Module {
 public:
  PatchMergingImpl(int64_t dim, double norm_eps);
  /// [B, height, width, D] → [B, ⌈height/2⌉, ⌈width/2⌉, 2D]; odd sides are padded with zeros.
  at::Tensor forward(const at::Tensor& x, const ForwardContext& context = {});
  /// The same of a stream, whose sum is made while it is merged.
  at::Tensor forward_stream(const Residual& stream, const ForwardContext& context);

 private:
  LayerNorm norm_{nullptr};
  Linear reduction_{nullptr};
};
TORCH_MODULE(PatchMerging);

}  // namespace fathom
