// Normalisation over the last dimension.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/init.h"

namespace fathom {

/// x / root mean square(x) · weight (kernels/rms_norm.h).
class RMSNormImpl : public torch::nn::Module, public HasInitialValues {
 public:
  RMSNormImpl(int64_t dim, double eps);
  at::Tensor forward(const at::Tensor& x) const;
  void initialise(ParameterInit& init) const override;

  const at::Tensor& weight() const { return weight_; }
  double eps() const { return eps_; }

 private:
  double eps_;
  at::Tensor weight_;
};
TORCH_MODULE(RMSNorm);

/// (x − mean) / deviation · weight + bias. Source: Ba et al., "Layer normalization", 2016.
class LayerNormImpl : public torch::nn::Module, public HasInitialValues {
 public:
  LayerNormImpl(int64_t dim, double eps);
  at::Tensor forward(const at::Tensor& x) const;
  void initialise(ParameterInit& init) const override;

  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }
  double eps() const { return eps_; }

 private:
  double eps_;
  at::Tensor weight_;
  at::Tensor bias_;
};
TORCH_MODULE(LayerNorm);

}  // namespace fathom
