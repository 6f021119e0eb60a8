// Gradient reversal. Source: Ganin and Lempitsky, "Unsupervised domain adaptation by backpropagation", ICML
// 2015, equations 9 and 14.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom {

/// x itself; in the backward pass its gradient times −strength, a floating-point scalar on x's device, which
/// is read there: a recorded step takes what it holds at the replay. No gradient reaches the strength.
at::Tensor reverse_gradient(const at::Tensor& x, const at::Tensor& strength);

/// λ(p) = 2 ÷ (1 + exp(−10 p)) − 1 for training progress p in [0, 1], a scalar: from 0 to nearly 1.
at::Tensor reversal_strength(const at::Tensor& progress);

}  // namespace fathom
