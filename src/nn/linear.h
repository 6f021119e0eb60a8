// A linear layer with weights laid out as in Hugging Face models.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "nn/forward_context.h"
#include "nn/init.h"
#include "nn/lora.h"

namespace fathom {

struct LinearOptions {
  int64_t in = 0;
  int64_t out = 0;
  bool bias = true;
  double init_deviation = 0.02;  ///< of the normal distribution that weights begin with; biases begin with 0
  bool in_block = false;         ///< takes part where a context multiplies in FP8 (`ForwardContext::fp8`)
};

/// y = x Wᵀ + b, in x's type unless the context has products in one of their own: parameters of another type
/// are cast. What low-rank adapters it has been given add to it.
class LinearImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit LinearImpl(const LinearOptions& options);
  /// [..., in] → [..., out]. The context is for the type of products and the adapters' dropout.
  at::Tensor forward(const at::Tensor& x, const ForwardContext& context = {},
                     Feeds feeds = Feeds::kStates) const;
  /// GELU of that, with the exact GELU (kernels/linear_gelu.h).
  at::Tensor gelu(const at::Tensor& x, const ForwardContext& context = {}) const;
  void initialise(ParameterInit& init) const override;

  /// Adds an adapter as the child "lora_NAME", of the weight's type and device, its values not yet set.
  /// Errors (kInternal): the name is taken.
  Lora add_adapter(const std::string& name, LoraOptions options);
  /// By name, in the order they came.
  const std::vector<std::pair<std::string, Lora>>& adapters() const { return adapters_; }
  /// Adds what the adapters are worth to the weight, and drops them.
  void merge_adapters();

  bool is_plain() const { return !bias_.defined() && adapters_.empty(); }
  const LinearOptions& options() const { return options_; }
  const at::Tensor& weight() const { return weight_; }  ///< [out, in]
  const at::Tensor& bias() const { return bias_; }      ///< [out], or undefined

 private:
  LinearOptions options_;
  at::Tensor weight_;
  at::Tensor bias_;
  std::vector<std::pair<std::string, Lora>> adapters_;
};
TORCH_MODULE(Linear);

}  // namespace fathom
