#include "nn/linear.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "kernels/linear.h"
#include "kernels/linear_gelu.h"

namespace fathom {

LinearImpl::LinearImpl(const LinearOptions& options) : options_(options) {
  weight_ = register_parameter("weight", at::empty({options.out, options.in}));
  if (options.bias) bias_ = register_parameter("bias", at::empty({options.out}));
}

at::Tensor LinearImpl::forward(const at::Tensor& x, const ForwardContext& context, Feeds feeds) const {
  kernels::LinearTypes types = context.linear_types(x, feeds);
  if (options_.in_block) types.fp8 = context.fp8;
  at::Tensor y = kernels::linear(x, weight_, bias_, types);
  for (const auto& [name, adapter] : adapters_)
    if (adapter->weight() != 0) y = y + adapter->forward(x, context, feeds);
  return y;
}

at::Tensor LinearImpl::gelu(const at::Tensor& x, const ForwardContext& context) const {
  const bool in_fp8 =
      options_.in_block && context.fp8 != nullptr && kernels::multiplies_in_fp8(x, weight_, *context.fp8);
  if (in_fp8 || !bias_.defined() || !adapters_.empty()) return at::gelu(forward(x, context));
  return kernels::linear_gelu(x, weight_, bias_, context.linear_types(x));
}

Lora LinearImpl::add_adapter(const std::string& name, LoraOptions options) {
  for (const auto& [taken, adapter] : adapters_)
    FATHOM_CHECK(taken != name, "[linear] there is an adapter \"{}\" already", name);
  options.in = options_.in;
  options.out = options_.out;
  Lora adapter(options);
  adapter->to(weight_.device(), weight_.scalar_type());
  register_module("lora_" + name, adapter);
  adapters_.emplace_back(name, adapter);
  return adapter;
}

void LinearImpl::merge_adapters() {
  const at::NoGradGuard no_grad;
  for (const auto& [name, adapter] : adapters_) {
    if (adapter->weight() != 0) weight_.add_(adapter->delta());
    unregister_module("lora_" + name);
  }
  adapters_.clear();
}

void LinearImpl::initialise(ParameterInit& init) const {
  init.normal("weight", options_.init_deviation);
  if (options_.bias) init.constant("bias", 0.0);
}

}  // namespace fathom
