#include "nn/mlp.h"

#include <ATen/ATen.h>

#include "kernels/fp8_mlp.h"
#include "kernels/gelu_mlp.h"
#include "kernels/linear_swiglu.h"
#include "kernels/swiglu.h"

namespace fathom {

SwigluMlpImpl::SwigluMlpImpl(const MlpOptions& options) {
  gate_up_ = register_module(
      "gate_up",
      Linear(LinearOptions{.in = options.dim, .out = 2 * options.inner, .bias = false, .in_block = true}));
  down_ = register_module("down", Linear(LinearOptions{.in = options.inner,
                                                       .out = options.dim,
                                                       .bias = false,
                                                       .init_deviation = options.output_deviation,
                                                       .in_block = true}));
}

at::Tensor SwigluMlpImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  if (context.fp8 != nullptr && is_plain() &&
      kernels::is_fp8_mlp(x, gate_up_->weight(), down_->weight(), *context.fp8))
    return kernels::fp8_mlp(x, gate_up_->weight(), down_->weight(), *context.fp8, context.rooms);
  if (is_plain() && context.fp8 == nullptr)
    return down_(kernels::linear_swiglu(x, gate_up_->weight(), context.linear_types(x)), context);
  return down_(kernels::swiglu(gate_up_(x, context), context.products), context);
}

GeluMlpImpl::GeluMlpImpl(const MlpOptions& options) {
  up_ =
      register_module("up", Linear(LinearOptions{.in = options.dim, .out = options.inner, .in_block = true}));
  if (options.local_mixing > 0)
    local_mixing_ = register_module("local_mixing", LocalMixing(options.inner, options.local_mixing));
  down_ = register_module("down", Linear(LinearOptions{.in = options.inner,
                                                       .out = options.dim,
                                                       .init_deviation = options.output_deviation,
                                                       .in_block = true}));
}

at::Tensor GeluMlpImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  if (is_plain() && context.fp8 == nullptr && !context.products.narrow(x))
    return kernels::gelu_mlp(x, {up_->weight(), up_->bias(), down_->weight(), down_->bias()},
                             context.linear_types(x));
  const auto inner = up_->gelu(x, context);
  return down_(local_mixing_.is_empty() ? inner : local_mixing_(inner), context);
}

}  // namespace fathom
