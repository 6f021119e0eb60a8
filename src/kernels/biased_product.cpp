#include "kernels/biased_product.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>

#include <string_view>

namespace fathom::kernels {
namespace {

using Pointwise = at::Tensor(const at::Tensor& x, const at::Tensor& weight,
                             const std::optional<at::Tensor>& bias, std::string_view attribute,
                             c10::List<std::optional<at::Scalar>> scalars,
                             std::optional<std::string_view> algorithm);

/// Absent from a LibTorch without oneDNN.
std::optional<c10::TypedOperatorHandle<Pointwise>> pointwise() {
  const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  if (!found || !__builtin_cpu_supports("avx512bf16")) return std::nullopt;
  return found->typed<Pointwise>();
}

}  // namespace

at::Tensor biased_product(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias) {
  static const auto op = pointwise();
  if (op && bias && x.is_cpu() && x.scalar_type() == at::kBFloat16 && x.numel() > 0)
    return op->call(x, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
  return at::linear(x, weight, bias);
}

}  // namespace fathom::kernels
