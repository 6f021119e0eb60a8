// What every layer's forward is told beside its input.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <optional>

namespace fathom {

/// Passed by reference down a model; a value, cheap to copy. The default is evaluation.
struct ForwardContext {
  /// Dropout and stochastic depth act only when `training` is set and `key_B` is defined.
  bool training = false;
  /// int64, one key a sample, on the input's device: a mix of (seed, step, sample). Masks are a pure function
  /// of (key, layer, position), so they do not change with the split into micro-batches or ranks, or on
  /// recompute.
  at::Tensor key_B = {};
  /// Type of activations and matrix products; without one, that of the parameters. Parameters of another type
  /// are cast where they are used, so float32 parameters under kBFloat16 collect float32 gradients.
  std::optional<at::ScalarType> compute_dtype = std::nullopt;
  /// Keep only the inputs of each block and compute its inside again in the backward pass.
  bool checkpoint_blocks = false;
  /// int64 [B, T], the number of the text that each token belongs to, where a row holds several: they do not
  /// see each other. Undefined: one text a row.
  at::Tensor segment_BT = {};

  bool drops() const { return training && key_B.defined(); }
};

}  // namespace fathom
