#include "nn/linear.h"

#include "kernels/linear.h"

namespace fathom {

LinearImpl::LinearImpl(const LinearOptions& options) : options_(options) {
  weight_ = register_parameter("weight", at::empty({options.out, options.in}));
  if (options.bias) bias_ = register_parameter("bias", at::empty({options.out}));
}

at::Tensor LinearImpl::forward(const at::Tensor& x) const {
  return kernels::linear(x, weight_, bias_);
}

void LinearImpl::initialise(ParameterInit& init) const {
  init.normal("weight", options_.init_deviation);
  if (options_.bias) init.constant("bias", 0.0);
}

}  // namespace fathom
