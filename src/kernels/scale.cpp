#include "kernels/scale.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

void scale_cpu(const at::Tensor& x, const at::Tensor& factor) {
  const double by = factor.item<double>();
  if (by != 1) x.mul_(by);
}

}  // namespace

void scale_(const at::Tensor& x, const at::Tensor& factor) {
  FATHOM_CHECK(x.is_non_overlapping_and_dense() && factor.numel() == 1 && factor.device() == x.device(),
               "[scale] expected a dense tensor and one factor on {}", x.device().str());
  static const auto op = find_op<void(const at::Tensor&, const at::Tensor&)>("fathom::scale_");
  const at::AutoDispatchBelowADInplaceOrView below;
  op.call(x, factor.to(c10::promoteTypes(x.scalar_type(), at::kFloat)));
}

void scale_ref::apply(const at::Tensor& x, const at::Tensor& factor) {
  x.copy_(x.to(factor.scalar_type()).mul(factor));
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("scale_(Tensor(a!) x, Tensor factor) -> ()");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("scale_", scale_ref::apply);
}
TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("scale_", scale_cpu);
}

}  // namespace fathom::kernels
