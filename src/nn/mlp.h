// The two kinds of feed-forward layer. D model width, M inner width.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/linear.h"
#include "nn/local_mixing.h"

namespace fathom {

struct MlpOptions {
  int64_t dim = 0;
  int64_t inner = 0;
  double output_deviation = 0.02;  ///< initial deviation of the second projection
  int64_t local_mixing = 0;        ///< GeluMlp on a map: side of the neighbourhood, 0: none
};

/// down(silu(gate(x)) · up(x)), without biases; gate and up are one product (kernels/swiglu.h).
class SwigluMlpImpl : public torch::nn::Module {
 public:
  explicit SwigluMlpImpl(const MlpOptions& options);
  at::Tensor forward(const at::Tensor& x, const ForwardContext& context = {});
  /// Without adapters.
  bool is_plain() const { return gate_up_->is_plain() && down_->is_plain(); }
  Linear gate_up() const { return gate_up_; }
  Linear down() const { return down_; }

 private:
  Linear gate_up_{nullptr};  ///< [2M, D], gate first
  Linear down_{nullptr};     ///< [D, M]
};
TORCH_MODULE(SwigluMlp);

/// down(GELU(up(x))) with biases and the exact GELU. With `local_mixing` neighbours are mixed between the two
/// (Li et al., "LocalViT", 2021), and x is [B, height, width, D].
class GeluMlpImpl : public torch::nn::Module {
 public:
  explicit GeluMlpImpl(const MlpOptions& options);
  at::Tensor forward(const at::Tensor& x, const ForwardContext& context = {});
  /// Nothing but two products with biases: no adapters, no mixing.
  bool is_plain() const {
    return local_mixing_.is_empty() && up_->adapters().empty() && down_->adapters().empty();
  }
  Linear up() const { return up_; }
  Linear down() const { return down_; }

 private:
  Linear up_{nullptr};  ///< [M, D]
  LocalMixing local_mixing_{nullptr};
  Linear down_{nullptr};  ///< [D, M]
};
TORCH_MODULE(GeluMlp);

}  // namespace fathom
