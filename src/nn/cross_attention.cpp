#include "nn/cross_attention.h"

#include <ATen/ATen.h>

#include "kernels/attention.h"

namespace fathom {

CrossAttentionImpl::CrossAttentionImpl(const CrossAttentionOptions& options) : options_(options) {
  const int64_t width = options.heads * options.head_dim;
  const auto make = [](int64_t in, int64_t out, double deviation) {
    return Linear(LinearOptions{.in = in, .out = out, .bias = false, .init_deviation = deviation});
  };
  query_ = register_module("query", make(options.dim, width, 0.02));
  key_value_ = register_module("key_value", make(options.dim, 2 * width, 0.02));
  output_ = register_module("output", make(width, options.dim, options.output_deviation));
}

at::Tensor CrossAttentionImpl::heads_of(const at::Tensor& x) const {
  return x.unflatten(2, {options_.heads, options_.head_dim}).transpose(1, 2);
}

at::Tensor CrossAttentionImpl::forward(const at::Tensor& x_BTD, const at::Tensor& states_BSD,
                                       const at::Tensor& mask) {
  const auto key_value = key_value_(states_BSD).chunk(2, 2);
  const auto y_BHTE = kernels::attention(heads_of(query_(x_BTD)), heads_of(key_value[0]),
                                         heads_of(key_value[1]), mask, /*causal=*/false);
  return output_(y_BHTE.transpose(1, 2).flatten(2));
}

GatedCrossAttentionImpl::GatedCrossAttentionImpl(const CrossAttentionOptions& options)
    : initial_gate_(options.initial_gate) {
  norm_ = register_module("norm", RMSNorm(options.dim, options.norm_eps));
  state_norm_ = register_module("state_norm", RMSNorm(options.dim, options.norm_eps));
  attention_ = register_module("attention", CrossAttention(options));
  gate_ = register_parameter("gate", at::empty({}));
}

at::Tensor GatedCrossAttentionImpl::forward(const at::Tensor& x_BTD, const at::Tensor& states_BSD,
                                            const at::Tensor& mask) {
  return x_BTD +
         gate_.tanh().to(x_BTD.scalar_type()) * attention_(norm_(x_BTD), state_norm_(states_BSD), mask);
}

void GatedCrossAttentionImpl::initialise(ParameterInit& init) const {
  init.constant("gate", initial_gate_);
}

}  // namespace fathom
