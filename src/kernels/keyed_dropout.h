// Dropout whose mask is a pure function of (key of the sample, stream, position): the same on any split of
// the batch and on recompute. The backward pass makes the mask again from the key; none is stored.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace fathom::kernels {

/// Zeroes elements of `x` [B, ...] with `probability` and scales the others by 1 / (1 − probability).
/// `key_B`: int64 [B]. `stream`: a number of its own for each place in the model. 0 ≤ probability < 1.
at::Tensor keyed_dropout(const at::Tensor& x, const at::Tensor& key_B, int64_t stream, double probability);

namespace keyed_dropout_ref {
/// Linear in `x`, hence its own backward pass.
at::Tensor apply(const at::Tensor& x, const at::Tensor& key_B, int64_t stream, double probability);
}  // namespace keyed_dropout_ref

}  // namespace fathom::kernels
