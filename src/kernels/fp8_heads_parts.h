// `fp8_rope_heads_backward` by the operations that it stands for: what runs where no kernel takes it. Header
// only, since the plug-in links no object of ours.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/call.h"
#include "kernels/fp8_tiles.h"

namespace fathom::kernels::fp8_heads_parts {

/// Gradients by heads, [B, heads, T, E], and angles.
struct Backward {
  const at::Tensor &grad_q, &grad_k, &grad_v, &cos_TF, &sin_TF;
};

inline fp8_tiles_ref::FourTensors backward(const Backward& of, at::ScalarType type, int64_t plain,
                                           int64_t turned, const std::optional<at::Tensor>& beyond) {
  static const auto packed =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         const at::Tensor&)>("fathom::rope_heads_backward");
  static const auto tiles =
      find_op<fp8_tiles_ref::FourTensors(const at::Tensor&, at::ScalarType, int64_t, int64_t,
                                         const std::optional<at::Tensor>&)>("fathom::fp8_tiles");
  return tiles.call(packed.call(of.grad_q, of.grad_k, of.grad_v, of.cos_TF, of.sin_TF).flatten(0, 1), type,
                    plain, turned, beyond);
}

}  // namespace fathom::kernels::fp8_heads_parts
