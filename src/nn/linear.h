// A linear layer with weights laid out as in Hugging Face models.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/init.h"

namespace fathom {

struct LinearOptions {
  int64_t in = 0;
  int64_t out = 0;
  bool bias = true;
  double init_deviation = 0.02;  ///< of the normal distribution that weights begin with; biases begin with 0
};

/// y = x Wᵀ + b, in x's type: parameters of another type are cast.
class LinearImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit LinearImpl(const LinearOptions& options);
  /// [..., in] → [..., out].
  at::Tensor forward(const at::Tensor& x) const;
  void initialise(ParameterInit& init) const override;

  const LinearOptions& options() const { return options_; }
  const at::Tensor& weight() const { return weight_; }  ///< [out, in]
  const at::Tensor& bias() const { return bias_; }      ///< [out], or undefined

 private:
  LinearOptions options_;
  at::Tensor weight_;
  at::Tensor bias_;
};
TORCH_MODULE(Linear);

}  // namespace fathom
