// The factor between cosines and logits.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom {

/// exp(log_scale), at most 100; beyond the bound the gradient stays that of the bound, so that the parameter
/// finds its way back. Scalar, float32 or wider.
at::Tensor bounded_scale(const at::Tensor& log_scale);

/// x to unit length along its last dimension, in float32 or wider.
at::Tensor unit_length(const at::Tensor& x);

}  // namespace fathom
