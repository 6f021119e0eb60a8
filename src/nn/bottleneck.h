// A small perceptron that brings features of one width to another.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/forward_context.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace fathom {

struct BottleneckOptions {
  int64_t in = 0;
  int64_t inner = 0;  ///< 0: one linear layer from `in` to `out`
  int64_t out = 0;
  double norm_eps = 1e-5;
};

/// up(GELU(down(norm(x)))), or, without an inner width, projection(x); with biases.
class BottleneckImpl : public torch::nn::Module {
 public:
  explicit BottleneckImpl(const BottleneckOptions& options);
  /// [..., in] → [..., out].
  at::Tensor forward(const at::Tensor& x, const ForwardContext& context = {});

 private:
  LayerNorm norm_{nullptr};
  Linear down_{nullptr};
  Linear up_{nullptr};
  Linear projection_{nullptr};  ///< in the place of all three
};
TORCH_MODULE(Bottleneck);

}  // namespace fathom
