// Low-rank adaptation of a linear layer. Source: Hu et al., "LoRA: low-rank adaptation of large language
// models", ICLR 2022.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/forward_context.h"
#include "nn/init.h"

namespace fathom {

struct LoraOptions {
  int64_t in = 0;
  int64_t out = 0;
  int64_t rank = 0;
  double alpha = 0;    ///< what the adapter adds is scaled by alpha ÷ rank
  double dropout = 0;  ///< share of the input's elements, in training
  int64_t stream = 0;  ///< a number that tells this place in the model from all others
};

/// weight · alpha ÷ rank · B A dropout(x). A begins normal with variance 1 ÷ in, B with 0, so that training
/// starts from the model as it is. The parameters are "a" [rank, in] and "b" [out, rank].
class LoraImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit LoraImpl(const LoraOptions& options);
  /// [..., in] → [..., out], in the type of the layer's result. With dropout, the rows of x are those of the
  /// context's samples, in their order.
  at::Tensor forward(const at::Tensor& x, const ForwardContext& context = {},
                     Feeds feeds = Feeds::kStates) const;
  /// What this adds to the layer's weight: [out, in], in the parameters' type.
  at::Tensor delta() const;
  void initialise(ParameterInit& init) const override;

  const LoraOptions& options() const { return options_; }
  const at::Tensor& a() const { return a_; }
  const at::Tensor& b() const { return b_; }
  /// How much of the adapter is added: 1 as trained, 0 none.
  double weight() const { return weight_; }
  void set_weight(double weight) { weight_ = weight; }

 private:
  double scale() const { return weight_ * options_.alpha / static_cast<double>(options_.rank); }

  LoraOptions options_;
  at::Tensor a_;
  at::Tensor b_;
  double weight_ = 1.0;
};
TORCH_MODULE(Lora);

}  // namespace fathom
