#include <ATen/TensorOperators.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "kernels/keyed_dropout.h"
#include "tensor/random_keys.h"

namespace fathom::kernels::keyed_dropout_ref {

at::Tensor apply(const at::Tensor& x, const at::Tensor& key_B, int64_t stream, double probability) {
  const auto threshold = static_cast<int64_t>(std::ldexp(probability, 32));
  const auto keep = at::ge(keyed_bits(key_B, x.sizes().slice(1), stream), threshold);
  return at::where(keep, x * (1.0 / (1.0 - probability)), at::zeros({}, x.options()));
}

}  // namespace fathom::kernels::keyed_dropout_ref
