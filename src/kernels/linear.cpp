#include "kernels/linear.h"

#include <ATen/ops/linear.h>

#include "base/error.h"

namespace fathom::kernels {
namespace {

bool has_fast_bfloat16() {
  static const bool fast = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                           __builtin_cpu_supports("avx512dq");
  return fast;
}

at::Tensor cast(const at::Tensor& x, at::ScalarType type) {
  return x.defined() ? x.to(type) : x;
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  FATHOM_CHECK(weight.dim() == 2 && x.dim() > 0 && x.size(-1) == weight.size(1),
               "[linear] expected inputs of {} features, got {}", weight.dim() == 2 ? weight.size(1) : -1,
               x.dim() > 0 ? x.size(-1) : 0);
  const auto type = x.scalar_type();
  if (type == at::kBFloat16 && x.is_cpu() && !has_fast_bfloat16())
    return at::linear(x.to(at::kFloat), cast(weight, at::kFloat), cast(bias, at::kFloat)).to(type);
  return at::linear(x, cast(weight, type), cast(bias, type));
}

}  // namespace fathom::kernels
