// Layers with gates on a device that alone knows how many tokens they compute: the host gives every operation
// the room of all tokens, and each reads from the device how many rows are in use, so that nothing waits.
// Without gradients: counted_gradients.h has these, counted_block.h a layer of both, counted_branch.h those
// of a Swin. B batch, T tokens, N = B·T rows that there is room for, n ≤ N of active tokens, and behind them
// those of explored ones, D model width, H heads, K key-value heads, E head size, I width of a gate's
// bottleneck. What lies in rows that are not in use means nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "kernels/counted_slots.h"
#include "kernels/rope_heads.h"

namespace fathom::kernels {

/// Which tokens of a batch [B, T] the rows hold: the active ones in rising order, then the explored ones,
/// whose output only their score's gradient sees.
struct CountedRows {
  at::Tensor place_N;   ///< int32: row i is token b·T + t
  at::Tensor slot_N;    ///< int32: the other way round; CountedSlots where a token has no row
  at::Tensor start_S1;  ///< int32 [B + 1]: where each sequence's active rows begin, and n
  /// Of the same shape: the last is the number of all rows, and no other is for an operation to read.
  /// Undefined: none are explored.
  at::Tensor used_S1;
  /// How many rows the host expects: what kernels are chosen for, whatever the device counts; 0: N.
  int64_t expected = 0;

  /// What says in its last element how many rows there are. The others are borders of sequences only where
  /// none are explored.
  const at::Tensor& all() const { return used_S1.defined() ? used_S1 : start_S1; }
};

/// Elements of 16 bits that kernels read at once: widths are multiples of it.
constexpr int64_t kCountedVector = 8;

/// Whether there are kernels for `x`: on a Hopper GPU, whose products take as many rows as are counted, of 16
/// bits, widths that are multiples of 16 bytes and at most 8,192.
bool has_counted_rows(const at::Tensor& x_BTD, int64_t head_size);

/// The parameters of a gate's scorer behind its product, of one type.
struct ScorerWeights {
  at::Tensor shift;  ///< [2I]
  at::Tensor out;    ///< [I]
  at::Tensor bias;   ///< [1]
};

/// What a gate's scorer multiplies: float32, or wider where its operands are.
struct ScorerProduct {
  at::Tensor both;             ///< norm(x) projectᵀ, [B, T, 2I]
  at::Tensor scale_BT1 = {};   ///< 1 / root mean square of x
  at::Tensor chunk_sums = {};  ///< what kernels want of `both` beside; undefined or empty: they make it
};
/// Of `x_BTD` in one pass where there is a kernel. `norm`: [D]; `project`: [2I, D]; both of x's type.
ScorerProduct scorer_product(const at::Tensor& x_BTD, const at::Tensor& norm, const at::Tensor& project,
                             double eps);
/// What an operation is told of `chunk_sums`.
std::optional<at::Tensor> known_sums(const ScorerProduct& product);

/// What a causal gate thinks of each token (nn/token_scorer.h): outᵀ GELU(own + running mean of other) +
/// bias, own and other being the halves of `product.both` + shift. `sum_BI`, of its type, takes the sum of
/// other over all tokens. Float32 [B, T].
at::Tensor causal_scores(const ScorerProduct& product, const ScorerWeights& weights, at::Tensor& sum_BI);

/// How tokens are chosen.
struct RowChoice {
  at::Tensor
      score_BT;  ///< float32: those that the sigmoid brings above a half; undefined where others decide
  at::Tensor active_BT;   ///< bool: these; undefined: scores decide
  at::Tensor present_BT;  ///< bool: the others are padding, which no gate sees; undefined: all
  at::Tensor key_B;       ///< int64: what exploration is drawn by; undefined: none
  int64_t stream = 0;     ///< of the draws
  double explore = 0;     ///< share of the other tokens that is explored
};

/// The rows, and the active tokens (bool [B, T]). Adds active tokens, tokens, and the entropy of their
/// scores' decisions in bits to `counts` (float64 [3]).
std::pair<CountedRows, at::Tensor> chosen_rows(const RowChoice& choice, at::Tensor* counts = nullptr);

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
/// Both at once: rounded once where a GPU's product writes it. `weight`: [2M, D]. With `keep` also what
/// SwiGLU is taken of, else nothing.
std::pair<at::Tensor, at::Tensor> counted_linear_swiglu(const at::Tensor& x, const at::Tensor& weight,
                                                        const CountedRows& rows, bool keep);
/// Rotates queries and keys in place: `qkv` [N, (H + 2K)·E], `cos_TF` and `sin_TF` float32 [T, E/2]. Keys and
/// values are also written to the front of their sequences in `keys` and `values` [B, K, capacity, E], where
/// these are defined.
void counted_rope(at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, HeadLayout layout,
                  const CountedRows& rows, const at::Tensor& keys, const at::Tensor& values);
/// What attention made: [N, H·E], and what its backward pass wants beside.
struct CountedAttention {
  at::Tensor y, sums, offsets;
};
/// Attention of the rows of each sequence to one another, with `causal` to those before them and themselves,
/// of `qkv` [N, (H + 2K)·E]. Explored rows look at active ones and themselves, and none looks at them.
CountedAttention counted_attention(const at::Tensor& qkv, HeadLayout layout, bool causal,
                                   const CountedRows& rows);
/// What is dropped of a branch (nn/residual.h).
struct RowDrop {
  double dropout = 0;
  double drop_path = 0;
  int64_t stream = 0;
};
/// `keyed_dropout` of the rows by their tokens' keys (`token_keys`) in stream 2s, and stochastic depth by
/// their samples' in 2s + 1: linear in `y` [N, D], hence its own backward pass. `key_B`: int64. Of as many
/// rows as the last of `count_S1` says.
at::Tensor counted_dropout(const at::Tensor& y, const at::Tensor& key_B, const RowDrop& drop,
                           const CountedRows& rows, const at::Tensor& count_S1);
/// h + y where a token is active, otherwise x: [B, T, D]. `h`, `y`: [N, D]. An undefined `h` is what x holds
/// there.
at::Tensor merged_rows(const at::Tensor& x_BTD, const at::Tensor& h, const at::Tensor& y,
                       const CountedRows& rows);
/// The same into `x_BTD`, dense, of which nothing else is touched.
void merge_rows(at::Tensor& x_BTD, const at::Tensor& h, const at::Tensor& y, const CountedRows& rows);

}  // namespace fathom::kernels
