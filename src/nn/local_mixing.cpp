#include "nn/local_mixing.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "kernels/product_type.h"

namespace fathom {

LocalMixingImpl::LocalMixingImpl(int64_t dim, int64_t side) : side_(side) {
  FATHOM_CHECK(side > 0 && side % 2 == 1, "[local_mixing] a neighbourhood of side {}, expected odd", side);
  weight_ = register_parameter("weight", at::empty({dim, 1, side, side}));
  bias_ = register_parameter("bias", at::empty({dim}));
}

at::Tensor LocalMixingImpl::forward(const at::Tensor& x, const ForwardContext& context) const {
  const auto type = kernels::product_type(x);
  const auto x_BDHW = x.to(type).permute({0, 3, 1, 2});
  const auto mixed = at::conv2d(x_BDHW, context.narrowed(weight_, type).to(type),
                                context.narrowed(bias_, type).to(type), /*stride=*/1, side_ / 2,
                                /*dilation=*/1, /*groups=*/x.size(3));
  return x + mixed.permute({0, 2, 3, 1}).to(x.scalar_type());
}

void LocalMixingImpl::initialise(ParameterInit& init) const {
  init.normal("weight", 1.0 / static_cast<double>(side_ * side_));
  init.constant("bias", 0.0);
}

}  // namespace fathom
