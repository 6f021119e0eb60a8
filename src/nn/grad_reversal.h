// Gradient reversal. Source: Ganin and Lempitsky, "Unsupervised domain adaptation by backpropagation", ICML
// 2015, equations 9 and 14.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom {

/// x itself; in the backward pass its gradient times −strength.
at::Tensor reverse_gradient(const at::Tensor& x, double strength);

/// λ(p) = 2 ÷ (1 + exp(−10 p)) − 1 for training progress p in [0, 1]: from 0 to nearly 1.
double reversal_strength(double progress);

}  // namespace fathom
