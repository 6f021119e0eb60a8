#include "nn/temperature.h"

#include <ATen/ATen.h>

#include <cmath>

namespace fathom {

at::Tensor bounded_scale(const at::Tensor& log_scale) {
  constexpr double kMaxScale = 100.0;
  const auto wide = log_scale.to(at::promote_types(log_scale.scalar_type(), at::kFloat));
  return (wide + (wide.clamp_max(std::log(kMaxScale)) - wide).detach()).exp();
}

at::Tensor unit_length(const at::Tensor& x) {
  const auto wide = x.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  return wide / at::linalg_vector_norm(wide, 2, {-1}, true).clamp_min(1e-12);
}

}  // namespace fathom
