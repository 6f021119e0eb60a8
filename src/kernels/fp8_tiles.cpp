#include "kernels/fp8_tiles.h"

#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

using fp8_tiles_ref::FourTensors;

bool is_fp8(at::ScalarType type) {
  return type == at::kFloat8_e4m3fn || type == at::kFloat8_e5m2;
}

}  // namespace

Fp8Pair fp8_tiles(const at::Tensor& x_RC, const Fp8Wish& wish, const at::Tensor& beyond) {
  static const auto op = find_op<FourTensors(const at::Tensor&, at::ScalarType, int64_t, int64_t,
                                             const std::optional<at::Tensor>&)>("fathom::fp8_tiles");
  FATHOM_CHECK(
      x_RC.dim() == 2 && x_RC.size(0) % kFp8Multiple == 0 && x_RC.size(1) % kFp8Multiple == 0 &&
          (x_RC.scalar_type() == at::kFloat || x_RC.scalar_type() == at::kBFloat16) && is_fp8(wish.type),
      "[fp8_tiles] expected a float32 or bfloat16 matrix of multiples of {}, got {} dimensions of {}",
      kFp8Multiple, x_RC.dim(), c10::toString(x_RC.scalar_type()));
  auto [plain, plain_scales, turned, turned_scales] = op.call(
      x_RC, wish.type, static_cast<int64_t>(wish.plain), static_cast<int64_t>(wish.turned), optional(beyond));
  return {{std::move(plain), std::move(plain_scales)}, {std::move(turned), std::move(turned_scales)}};
}

void fp8_product(const Fp8Matrix& left, const Fp8Matrix& right, const at::Tensor& bias, at::Tensor result) {
  static const auto op =
      find_op<void(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                   const std::optional<at::Tensor>&, at::Tensor&)>("fathom::fp8_product");
  const at::Tensor &a = left.values_RK, &b = right.values_RK;
  FATHOM_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(1) && result.dim() == 2 &&
                   result.size(0) == a.size(0) && result.size(1) == b.size(0) && result.is_contiguous(),
               "[fp8_product] expected two matrices of as many columns and room for their product");
  op.call(a, left.scales, b, right.scales, optional(bias), result);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "fp8_tiles(Tensor x, ScalarType type, int plain, int turned, Tensor(a!)? beyond) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "fp8_product(Tensor left, Tensor left_scales, Tensor right, Tensor right_scales, Tensor? bias, "
      "Tensor(a!) result) -> ()");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("fp8_tiles", fp8_tiles_ref::tiles);
  library.impl("fp8_product", fp8_tiles_ref::product);
}

}  // namespace fathom::kernels
