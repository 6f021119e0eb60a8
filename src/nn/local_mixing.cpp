#include "nn/local_mixing.h"

#include <ATen/ops/empty.h>

#include "base/error.h"
#include "kernels/local_mixing.h"

namespace fathom {

LocalMixingImpl::LocalMixingImpl(int64_t dim, int64_t side) : side_(side) {
  FATHOM_CHECK(side > 0 && side % 2 == 1, "[local_mixing] a neighbourhood of side {}, expected odd", side);
  weight_ = register_parameter("weight", at::empty({dim, 1, side, side}));
  bias_ = register_parameter("bias", at::empty({dim}));
}

at::Tensor LocalMixingImpl::forward(const at::Tensor& x) const {
  return kernels::local_mixing(x, weight_, bias_);
}

void LocalMixingImpl::initialise(ParameterInit& init) const {
  init.normal("weight", 1.0 / static_cast<double>(side_ * side_));
  init.constant("bias", 0.0);
}

}  // namespace fathom
