#include "nn/norm.h"

#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"

namespace fathom {

RMSNormImpl::RMSNormImpl(int64_t dim, double eps) : eps_(eps) {
  weight_ = register_parameter("weight", at::empty({dim}));
}

at::Tensor RMSNormImpl::forward(const at::Tensor& x) const {
  return kernels::rms_norm(x, weight_.to(x.scalar_type()), eps_);
}

void RMSNormImpl::initialise(ParameterInit& init) const {
  init.constant("weight", 1.0);
}

LayerNormImpl::LayerNormImpl(int64_t dim, double eps) : eps_(eps) {
  weight_ = register_parameter("weight", at::empty({dim}));
  bias_ = register_parameter("bias", at::empty({dim}));
}

at::Tensor LayerNormImpl::forward(const at::Tensor& x) const {
  return kernels::layer_norm(x, weight_, bias_, eps_);
}

void LayerNormImpl::initialise(ParameterInit& init) const {
  init.constant("weight", 1.0);
  init.constant("bias", 0.0);
}

}  // namespace fathom
