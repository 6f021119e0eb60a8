// The sum of a residual stream and a branch, and its layer norm (layer_norm.h), which reads the sum while it
// is made.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/residual_rms_norm.h"

namespace fathom::kernels {

/// What is added to a stream.
struct Branch {
  at::Tensor value;  ///< like the stream, [B, ...]
  at::Tensor scale_B =
      {};  ///< of its type: what each sample's part is multiplied with; undefined: 1. No gradient.

  bool fits(const at::Tensor& x) const;
};

/// `x`: [..., D]; `weight`, `bias`: [D], of its type or float32; their gradients have their own. The same
/// numbers as `layer_norm(x + scale · branch)`.
NormedSum residual_layer_norm(const at::Tensor& x, const Branch& branch, const at::Tensor& weight,
                              const at::Tensor& bias, double eps);

}  // namespace fathom::kernels
