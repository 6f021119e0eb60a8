#include "kernels/linear.h"

#include <ATen/ops/linear.h>

#include "base/error.h"
#include "kernels/product_type.h"

namespace fathom::kernels {

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  FATHOM_CHECK(weight.dim() == 2 && x.dim() > 0 && x.size(-1) == weight.size(1),
               "[linear] expected inputs of {} features, got {}", weight.dim() == 2 ? weight.size(1) : -1,
               x.dim() > 0 ? x.size(-1) : 0);
  const auto type = product_type(x);
  const auto b = bias.defined() ? bias.to(type) : bias;
  return at::linear(x.to(type), weight.to(type), b).to(x.scalar_type());
}

}  // namespace fathom::kernels
