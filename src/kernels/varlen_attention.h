// Attention over sequences of different lengths that lie one behind the other, without padding.
// N rows of all sequences, H heads, K key-value heads (a divisor of H), E head size, S
// sequences.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

/// What rows may look at. Row i of a sequence sees row j of the same sequence where j is a key or j = i.
struct VarlenLayout {
  at::Tensor start_S1;  ///< int64 [S + 1], on the CPU: where each sequence begins among the rows, and N
  at::Tensor key_N;     ///< bool: rows that others may look at; undefined: all
  bool causal = false;  ///< of those only j ≤ i
};

/// `q`: [H, N, E]; `k`, `v`: [K, N, E]. Result: [H, N, E], of which each row's heads lie together. Empty
/// sequences, and none at all, are allowed. Errors (kInternal): shapes or offsets that do not fit.
at::Tensor varlen_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const VarlenLayout& layout);

namespace varlen_attention_ref {
/// One masked product over all rows.
at::Tensor apply(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const VarlenLayout& layout);
}  // namespace varlen_attention_ref

}  // namespace fathom::kernels
