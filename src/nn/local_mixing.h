// Neighbours on a feature map, mixed channel by channel: what convolutional networks know of pictures from
// the start. Source: Chu et al., "Conditional positional encodings for vision transformers", ICLR 2023. B
// batch, D width.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/init.h"

namespace fathom {

/// x + depthwise convolution(x), zeros around the map.
class LocalMixingImpl : public torch::nn::Module, public HasInitialValues {
 public:
  /// `side`: of the neighbourhood, odd.
  LocalMixingImpl(int64_t dim, int64_t side);
  /// [B, height, width, D] → the same.
  at::Tensor forward(const at::Tensor& x) const;
  void initialise(ParameterInit& init) const override;

 private:
  int64_t side_;
  at::Tensor weight_;  ///< [D, 1, side, side]
  at::Tensor bias_;
};
TORCH_MODULE(LocalMixing);

}  // namespace fathom
