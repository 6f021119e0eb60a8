#include "nn/bottleneck.h"

#include <ATen/ATen.h>

#include <cmath>

namespace fathom {
namespace {

/// The deviation keeps the size of what passes through.
LinearOptions options_of(int64_t in, int64_t out) {
  return {.in = in, .out = out, .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))};
}

}  // namespace

BottleneckImpl::BottleneckImpl(const BottleneckOptions& options) {
  if (options.inner == 0) {
    projection_ = register_module("projection", Linear(options_of(options.in, options.out)));
    return;
  }
  norm_ = register_module("norm", LayerNorm(options.in, options.norm_eps));
  down_ = register_module("down", Linear(options_of(options.in, options.inner)));
  up_ = register_module("up", Linear(options_of(options.inner, options.out)));
}

at::Tensor BottleneckImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  if (!projection_.is_empty()) return projection_(x, context);
  return up_(down_->gelu(norm_(x), context), context);
}

}  // namespace fathom
