#include "kernels/half_product.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/half_product_parts.h"

namespace fathom::kernels {

at::Tensor half_product(const at::Tensor& a_MK, const at::Tensor& b_KN, const HalfResult& result) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                         at::ScalarType, bool, const std::optional<at::Tensor>&)>("fathom::half_product");
  FATHOM_CHECK(
      a_MK.dim() == 2 && b_KN.dim() == 2 && a_MK.size(1) == b_KN.size(0) && a_MK.scalar_type() == at::kHalf &&
          b_KN.scalar_type() == at::kHalf &&
          (!result.bias.defined() || (result.bias.dim() == 1 && result.bias.size(0) == b_KN.size(1))),
      "[half_product] expected matrices in FP16 that fit, and a bias of their columns");
  const bool saturates = result.saturating != nullptr;
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(a_MK, b_KN, optional(result.bias), result.type, saturates,
                 optional(saturates ? result.saturating->saturated : at::Tensor()));
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "half_product(Tensor a, Tensor b, Tensor? bias, ScalarType type, bool saturates, "
      "Tensor(a!)? saturated) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("half_product", half_product_parts::apply);
}

}  // namespace fathom::kernels
