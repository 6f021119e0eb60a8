#include "kernels/product_type.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/half_range.h"

namespace fathom::kernels {

at::ScalarType product_type(const at::Tensor& x) {
  static const bool fast_bfloat16 = __builtin_cpu_supports("avx512bf16");
  const auto type = x.scalar_type();
  const bool slow = x.is_cpu() && (type == at::kHalf || (type == at::kBFloat16 && !fast_bfloat16));
  return slow ? at::kFloat : type;
}

at::Tensor wide(const at::Tensor& x) {
  return x.to(c10::promoteTypes(x.scalar_type(), at::kFloat));
}

at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b) {
  const bool narrow = a.scalar_type() == at::kHalf || a.scalar_type() == at::kBFloat16;
  return a.is_cuda() && narrow ? at::mm(a, b, at::kFloat) : at::mm(wide(a), wide(b));
}

void write_wide_product(at::Tensor& result, const at::Tensor& a, const at::Tensor& b) {
  if (a.is_cuda() && a.scalar_type() != result.scalar_type())
    at::mm_outf(a, b, result.scalar_type(), result);
  else
    at::mm_outf(wide(a), wide(b), result);
}

void add_wide_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, double factor) {
  if (!a.is_cuda())
    sum.add_(wide_product(a, b), factor);
  else if (a.scalar_type() == sum.scalar_type())
    sum.addmm_(a, b, /*beta=*/1, factor);
  else
    at::addmm_outf(sum, a, b, sum.scalar_type(), /*beta=*/1, factor, sum);
}

at::Tensor saturated_half(const at::Tensor& x, const Products& products) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&)>("fathom::saturated_half");
  if (x.scalar_type() == at::kHalf) return x;
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(x, optional(products.saturated));
}

at::Tensor saturated_half_ref::apply(const at::Tensor& x, const std::optional<at::Tensor>& saturated) {
  // BF16 has no 65504: compared in it, the next number beyond FP16 would pass.
  const auto exact = wide(x);
  if (saturated) {
    at::Tensor count = *saturated;
    count.add_(exact.abs().gt(kLargestHalf).sum());
  }
  return exact.clamp(-kLargestHalf, kLargestHalf).to(at::kHalf);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("saturated_half(Tensor x, Tensor(a!)? saturated) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("saturated_half", saturated_half_ref::apply);
}

}  // namespace fathom::kernels
