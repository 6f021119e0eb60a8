// Layers with gates on a device that alone knows how many tokens they compute: the host gives every operation
// the room of all tokens, and each reads from the device how many rows are in use, so that nothing waits.
// Forward only. B batch, T tokens, N = B·T rows that there is room for, n ≤ N in use, D model width, H heads,
// K key-value heads, E head size, I width of a gate's bottleneck. What lies in rows from n on means nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include "kernels/rope_heads.h"

namespace fathom::kernels {

/// Which tokens of a batch [B, T] the rows hold, in rising order.
struct CountedRows {
  at::Tensor place_N;   ///< int32: row i is token b·T + t
  at::Tensor slot_N;    ///< int32: the other way round; -1 where a token has no row
  at::Tensor start_S1;  ///< int32 [B + 1]: where each sequence's rows begin, and n
};

/// Whether there are kernels for `x`: on a GPU, of 16 bits, widths that are multiples of 16 bytes.
bool has_counted_rows(const at::Tensor& x_BTD, int64_t head_size);

/// The parameters of a causal gate's scorer behind its product, of one type.
struct ScorerWeights {
  at::Tensor shift;  ///< [2I]
  at::Tensor out;    ///< [I]
  at::Tensor bias;   ///< [1]
};

/// What a causal gate thinks of each token (nn/token_scorer.h): outᵀ GELU(own + running mean of other) +
/// bias, own and other being the halves of `both` (float32 [B, T, 2I]) + shift. `sum_BI`, float32, takes the
/// sum of other over all tokens. Float32 [B, T].
at::Tensor causal_scores(const at::Tensor& both, const ScorerWeights& weights, at::Tensor& sum_BI);

/// The rows of the tokens whose score, brought between 0 and 1, is above a half; adds tokens that have a row,
/// tokens, and the entropy of all decisions in bits to `counts` (float64 [3]).
std::pair<CountedRows, at::Tensor> scored_rows(const at::Tensor& score_BT, at::Tensor& counts);
/// The rows of tokens that are chosen already, bool [B, T]; adds tokens that have a row, and tokens, to
/// `counts`.
CountedRows chosen_rows(const at::Tensor& active_BT, at::Tensor* counts = nullptr);

/// `rms_norm` of the rows' tokens: [B, T, D] → [N, D].
at::Tensor gathered_rms_norm(const at::Tensor& x_BTD, const at::Tensor& weight, double eps,
                             const CountedRows& rows);
/// The rows' tokens + `y` [N, D], and `rms_norm` of that.
std::pair<at::Tensor, at::Tensor> added_rms_norm(const at::Tensor& x_BTD, const at::Tensor& y,
                                                 const at::Tensor& weight, double eps,
                                                 const CountedRows& rows);
/// x Wᵀ: [N, in] → [N, out]. `weight`: [out, in], of x's type.
at::Tensor counted_linear(const at::Tensor& x, const at::Tensor& weight, const CountedRows& rows);
/// [N, 2M] → [N, M], as `swiglu`.
at::Tensor counted_swiglu(const at::Tensor& gate_up, const CountedRows& rows);
/// Rotates queries and keys in place: `qkv` [N, (H + 2K)·E], `cos_TF` and `sin_TF` float32 [T, E/2]. Keys and
/// values are also written to the front of their sequences in `keys` and `values` [B, K, capacity, E], where
/// these are defined.
void counted_rope(at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, HeadLayout layout,
                  const CountedRows& rows, const at::Tensor& keys, const at::Tensor& values);
/// Causal attention of the rows of each sequence to one another: `qkv` [N, (H + 2K)·E] → [N, H·E].
at::Tensor counted_attention(const at::Tensor& qkv, HeadLayout layout, int64_t tokens,
                             const CountedRows& rows);
/// h + y where a token has a row, otherwise x: [B, T, D]. `h`, `y`: [N, D].
at::Tensor merged_rows(const at::Tensor& x_BTD, const at::Tensor& h, const at::Tensor& y,
                       const CountedRows& rows);

}  // namespace fathom::kernels
