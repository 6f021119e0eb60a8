// `half_product` by the operations that it stands for: what runs where no kernel takes it. Header only, since
// the plug-in links no object of ours.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>

#include <optional>

#include "kernels/call.h"

namespace fathom::kernels::half_product_parts {

inline at::Tensor apply(const at::Tensor& a, const at::Tensor& b, const std::optional<at::Tensor>& bias,
                        at::ScalarType type, bool saturates, const std::optional<at::Tensor>& saturated) {
  static const auto cast =
      find_op<at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&)>("fathom::saturated_half");
  auto y = a.is_cuda() ? at::mm(a, b, at::kFloat) : at::mm(a.to(at::kFloat), b.to(at::kFloat));
  if (bias) y.add_(*bias);
  return type == at::kHalf && saturates ? cast.call(y, saturated) : y.to(type);
}

}  // namespace fathom::kernels::half_product_parts
