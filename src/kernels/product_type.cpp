#include "kernels/product_type.h"

namespace fathom::kernels {

at::ScalarType product_type(const at::Tensor& x) {
  static const bool fast_bfloat16 = __builtin_cpu_supports("avx512bw") &&
                                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool slow = x.is_cpu() && x.scalar_type() == at::kBFloat16 && !fast_bfloat16;
  return slow ? at::kFloat : x.scalar_type();
}

at::Tensor wide(const at::Tensor& x) {
  return x.to(c10::promoteTypes(x.scalar_type(), at::kFloat));
}

}  // namespace fathom::kernels
