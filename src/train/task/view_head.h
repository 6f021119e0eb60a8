// The head of the contrast among views of one picture.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/linear.h"

namespace fathom {

/// What the self-contrast of views compares: a two-layer perceptron on the image tower's pooled features,
/// thrown away after training. Source: Mu et al., "SLIP: self-supervision meets language-image pre-training",
/// ECCV 2022.
class ViewHeadImpl : public torch::nn::Module {
 public:
  explicit ViewHeadImpl(int64_t in);
  /// Pooled features [B, D] → unit vectors, [B, 128], float32 or wider.
  at::Tensor forward(const at::Tensor& pooled_BD);

 private:
  Linear hidden_{nullptr};
  Linear out_{nullptr};
};
TORCH_MODULE(ViewHead);

/// Weights that each row of `in` features is multiplied with.
int64_t view_head_products(int64_t in);

}  // namespace fathom
