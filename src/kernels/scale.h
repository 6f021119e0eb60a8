// Multiplication in place by a factor that the device alone knows.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

/// x ← factor · x, in float32 at least and rounded once. `x`: dense, of any floating type; `factor`: one
/// number on its device. Where that is exactly 1, x is neither read nor written; a GPU's host does not wait
/// to know. No gradient.
void scale_(const at::Tensor& x, const at::Tensor& factor);

namespace scale_ref {
void apply(const at::Tensor& x, const at::Tensor& factor);
}  // namespace scale_ref

}  // namespace fathom::kernels
