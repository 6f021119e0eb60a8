// Keyed randomness on tensors: every value is a pure function of (key of its sample, stream, position), so it
// is the same on any device, rank and split into batches, and when it is computed again.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "tensor/keyed_bits.h"

namespace fathom {

/// `keyed_bits` as int64 in [0, 2³²), shape [B, per_sample_shape…], on key_B's device. `key_B`: int64 [B].
/// REQUIRES fewer than 2³² elements a sample.
at::Tensor keyed_bits(const at::Tensor& key_B, at::IntArrayRef per_sample_shape, int64_t stream);

/// Uniform float32 in [0, 1): the upper 24 bits of `keyed_bits`.
at::Tensor keyed_uniform(const at::Tensor& key_B, at::IntArrayRef per_sample_shape, int64_t stream);

/// `token_key` of all tokens: [B, T].
at::Tensor token_keys(const at::Tensor& key_B, int64_t tokens);

/// One key a sample: (seed, step) mixed with each of `index_B` (int64 [B], positions in the data set).
at::Tensor make_sample_keys(const at::Tensor& index_B, int64_t seed, int64_t step);

/// A key for each of a sample's `each` rows, the first the sample's own: [each·B], those of sample b from
/// each·b on.
at::Tensor keys_of_rows(const at::Tensor& key_B, int64_t each);

}  // namespace fathom
