#include "nn/adapter.h"

#include <ATen/ATen.h>

#include <cmath>

namespace fathom {

AdapterImpl::AdapterImpl(const AdapterOptions& options) {
  down_ = register_module(
      "down", Linear(LinearOptions{.in = options.dim,
                                   .out = options.bottleneck,
                                   .init_deviation = 1.0 / std::sqrt(static_cast<double>(options.dim))}));
  up_ = register_module(
      "up", Linear(LinearOptions{.in = options.bottleneck, .out = options.dim, .init_deviation = 0.0}));
}

at::Tensor AdapterImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  return x + up_(at::gelu(down_(x, context)), context);
}

}  // namespace fathom
