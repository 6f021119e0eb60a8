// Attention within sequences of rows that the device counts: forward by our kernel for heads of 64 and 128,
// else by cuDNN; backward by cuDNN, or for heads of 64 by our kernels where heads share keys or every run
// must give the same bits. For files that see LibTorch.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace fathom::cuda {

/// Rows [queries | keys | values] of heads of E elements, and the device's count of them.
struct RaggedRows {
  at::Tensor qkv;  ///< [rows, (heads + 2 · kv_heads) · E], dense
  int64_t heads;
  int64_t kv_heads;
  at::Tensor start;  ///< int32 [sequences + 1]: rows before each sequence, and all
  int64_t tokens;    ///< that a sequence may have
  bool causal;       ///< rows look at those before them and themselves; otherwise at all of their sequence

  int64_t count() const { return qkv.size(0); }
  int64_t sequences() const { return start.numel() - 1; }
  int64_t head_size() const { return qkv.size(1) / (heads + 2 * kv_heads); }
};

struct RaggedAttention {
  at::Tensor y;        ///< [rows, heads · E]
  at::Tensor sums;     ///< float32 [rows, heads, 1], the logarithm of each row's sum of exponentials
  at::Tensor offsets;  ///< what cuDNN is told of the sequences
};

/// Rows of no sequence hold anything. Nothing where neither takes these: the caller has another way.
std::optional<RaggedAttention> ragged_attention(const RaggedRows& rows);

/// Of queries, keys and values, [rows, heads, E] each, dense. `made`: by `ragged_attention`.
/// The same in every run where LibTorch is told to use deterministic algorithms (tensor/determinism.h).
/// Nothing where nobody has such a pass.
std::optional<std::tuple<at::Tensor, at::Tensor, at::Tensor>> ragged_attention_backward(
    const RaggedRows& rows, const at::Tensor& grad, const RaggedAttention& made);

}  // namespace fathom::cuda
