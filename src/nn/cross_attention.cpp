#include "nn/cross_attention.h"

#include <ATen/ATen.h>

#include <cmath>

#include "kernels/attention.h"

namespace fathom {
namespace {

at::Tensor mean_shares(const at::Tensor& q_BHTE, const at::Tensor& k_BHSE, const at::Tensor& mask) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q_BHTE.size(3)));
  at::Tensor score_BHTS = at::matmul(q_BHTE, k_BHSE.transpose(2, 3)) * scale;
  score_BHTS = score_BHTS.to(at::promote_types(score_BHTS.scalar_type(), at::kFloat));
  if (mask.defined()) score_BHTS = score_BHTS.masked_fill(mask.logical_not(), -INFINITY);
  return score_BHTS.softmax(3).mean(1);
}

}  // namespace

CrossAttentionImpl::CrossAttentionImpl(const CrossAttentionOptions& options) : options_(options) {
  const int64_t width = options.heads * options.head_dim;
  const auto make = [](int64_t in, int64_t out, double deviation) {
    return Linear(
        LinearOptions{.in = in, .out = out, .bias = false, .init_deviation = deviation, .in_block = true});
  };
  query_ = register_module("query", make(options.dim, width, 0.02));
  key_value_ = register_module("key_value", make(options.dim, 2 * width, 0.02));
  output_ = register_module("output", make(width, options.dim, options.output_deviation));
}

at::Tensor CrossAttentionImpl::heads_of(const at::Tensor& x) const {
  return x.unflatten(2, {options_.heads, options_.head_dim}).transpose(1, 2);
}

at::Tensor CrossAttentionImpl::forward(const at::Tensor& x_BTD, const AttendedStates& attended,
                                       const ForwardContext& context, at::Tensor* attention_BTS) {
  const auto key_value = key_value_(attended.state_BSD, context, Feeds::kProduct).chunk(2, 2);
  at::Tensor value_BSD = key_value[1];
  if (attended.weight_BS.defined())
    value_BSD = value_BSD * attended.weight_BS.to(value_BSD.scalar_type()).unsqueeze(2);
  const auto q_BHTE = heads_of(query_(x_BTD, context, Feeds::kProduct)), k_BHSE = heads_of(key_value[0]);
  if (attention_BTS) *attention_BTS = mean_shares(q_BHTE, k_BHSE, attended.mask);
  const auto y_BHTE =
      kernels::attention(q_BHTE, k_BHSE, heads_of(value_BSD), attended.mask, /*causal=*/false);
  return output_(y_BHTE.transpose(1, 2).flatten(2), context);
}

GatedCrossAttentionImpl::GatedCrossAttentionImpl(const CrossAttentionOptions& options)
    : initial_gate_(options.initial_gate) {
  norm_ = register_module("norm", RMSNorm(options.dim, options.norm_eps));
  state_norm_ = register_module("state_norm", RMSNorm(options.dim, options.norm_eps));
  attention_ = register_module("attention", CrossAttention(options));
  gate_ = register_parameter("gate", at::empty({}));
}

at::Tensor GatedCrossAttentionImpl::forward(const at::Tensor& x_BTD, const AttendedStates& attended,
                                            const ForwardContext& context, at::Tensor* attention_BTS) {
  AttendedStates normed = attended;
  normed.state_BSD = state_norm_(attended.state_BSD);
  return x_BTD + gate_.tanh().to(x_BTD.scalar_type()) *
                     attention_->forward(norm_(x_BTD), normed, context, attention_BTS);
}

void GatedCrossAttentionImpl::initialise(ParameterInit& init) const {
  init.constant("gate", initial_gate_);
}

}  // namespace fathom
