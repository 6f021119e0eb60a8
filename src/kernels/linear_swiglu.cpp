#include "kernels/linear_swiglu.h"

#include <ATen/ops/linear.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/linear_gradient.h"
#include "kernels/pass_learns.h"
#include "kernels/swiglu.h"

namespace fathom::kernels {
namespace {

at::Tensor linear_swiglu_ref(const at::Tensor& x, const at::Tensor& weight) {
  return swiglu_ref::forward(at::linear(x, weight));
}

}  // namespace

at::Tensor linear_swiglu(const at::Tensor& x, const at::Tensor& gate_up, const LinearTypes& types) {
  static const auto op = find_op<at::Tensor(const at::Tensor&, const at::Tensor&)>("fathom::linear_swiglu");
  FATHOM_CHECK(gate_up.dim() == 2 && gate_up.size(0) % 2 == 0 && x.dim() > 0 && x.size(-1) == gate_up.size(1),
               "[linear_swiglu] expected inputs of {} features, got {}",
               gate_up.dim() == 2 ? gate_up.size(1) : -1, x.dim() > 0 ? x.size(-1) : 0);
  const bool learns = pass_learns() && (x.requires_grad() || gate_up.requires_grad());
  if (learns || types.fp8 != nullptr || types.products.narrow(x) || !x.is_cuda())
    return swiglu(linear(x, gate_up, {}, types), types.products);
  const auto type = product_type(x);
  const auto rows = x.to(type).reshape({-1, x.size(-1)});
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(rows, narrowed_weight(gate_up, type, types.copies))
      .view(with_last(x, gate_up.size(0) / 2))
      .to(types.result.value_or(x.scalar_type()));
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("linear_swiglu(Tensor x, Tensor weight) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("linear_swiglu", linear_swiglu_ref);
}

}  // namespace fathom::kernels
