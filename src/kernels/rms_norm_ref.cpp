#include <ATen/TensorOperators.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sum.h>

#include "kernels/rms_norm.h"

namespace fathom::kernels::rms_norm_ref {
namespace {

at::Tensor widen(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto wide = widen(x);
  auto scale = at::rsqrt(at::mean(wide * wide, {-1}, true) + eps);
  return {(wide * scale * widen(weight)).to(x.scalar_type()), scale};
}

std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& x,
                                            const at::Tensor& weight, const at::Tensor& scale) {
  const auto normal = widen(x) * scale, g = widen(grad);
  const auto weighted = g * widen(weight);
  const auto grad_x = scale * (weighted - normal * at::mean(weighted * normal, {-1}, true));
  const auto grad_weight = at::sum((g * normal).reshape({-1, x.size(-1)}), {0});
  return {grad_x.to(x.scalar_type()), grad_weight.to(x.scalar_type())};
}

}  // namespace fathom::kernels::rms_norm_ref
