// Weights as a formula, the same as in tests/golden/formula_weights.py: element i of the tensor NAME is
// base + reach · u(NAME, i), u uniform in [−1, 1).
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <string>

#include "tensor/random_keys.h"

namespace fathom::testing {

/// float64 [count] in [−1, 1).
inline at::Tensor formula_uniform(const std::string& name, int64_t count) {
  uint32_t key = 0x811c9dc5U;
  for (const char c : name) key = (key ^ static_cast<uint8_t>(c)) * 0x01000193U;
  auto values = at::empty({count}, at::kDouble);
  auto* out = values.mutable_data_ptr<double>();
  for (int64_t i = 0; i < count; ++i)
    out[i] = (mix32(mix32(static_cast<uint32_t>(i) ^ key) + 0x9e3779b9U) >> 8) * 0x1p-23 - 1.0;
  return values;
}

/// Matrices have deviation 1/√fan-in, norm weights lie around 1, biases around 0. float32.
inline at::Tensor formula_weight(const std::string& name, at::IntArrayRef shape) {
  const int64_t count = c10::multiply_integers(shape);
  const bool matrix = shape.size() >= 2;
  const double base = !matrix && name.ends_with("weight") ? 1.0 : 0.0;
  const double reach =
      matrix ? std::sqrt(3.0 / (static_cast<double>(count) / static_cast<double>(shape[0]))) : 0.1;
  return formula_uniform(name, count).mul_(reach).add_(base).to(at::kFloat).view(shape);
}

/// int64 ids below `vocab`.
inline at::Tensor formula_tokens(at::IntArrayRef shape, int64_t vocab) {
  const auto unit = formula_uniform("tokens", c10::multiply_integers(shape)).add_(1.0).div_(2.0);
  return unit.mul_(static_cast<double>(vocab)).floor_().to(at::kLong).view(shape);
}

/// Pixels around 0.
inline at::Tensor formula_image(at::IntArrayRef shape) {
  return formula_weight("image.weight", {c10::multiply_integers(shape)}).view(shape).mul_(10.0).sub_(10.0);
}

}  // namespace fathom::testing
