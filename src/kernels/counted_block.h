// A transformer's layer over the rows that the device counts: with gradients, and without a wait of the host.
// Letters as in counted_rows.h, M inner width of the feed-forward layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "kernels/counted_gradients.h"
#include "kernels/linear.h"
#include "kernels/weight_copies.h"
#include "tensor/gradient_rooms.h"

namespace fathom::kernels {

/// Of any floating type; products take them in that of the states.
struct CountedWeights {
  at::Tensor attention_norm;  ///< [D]
  at::Tensor qkv;             ///< [(H + 2K)·E, D]
  at::Tensor output;          ///< [D, H·E]
  at::Tensor mlp_norm;        ///< [D]
  at::Tensor gate_up;         ///< [2M, D]
  at::Tensor down;            ///< [D, M]
};

/// What of a layer works on the rows; the other part is not looked at.
enum class CountedPart { kBlock, kAttention, kMlp };

struct CountedBlock {
  CountedPart part = CountedPart::kBlock;
  HeadLayout heads;
  bool causal = true;
  double eps = 1e-5;
  RowDrop drop;       ///< of attention's branch; the other's stream is the next
  at::Tensor key_B;   ///< int64; undefined: nothing is dropped
  at::Tensor cos_TF;  ///< float32 [T, E/2], as sin_TF
  at::Tensor sin_TF;
  at::Tensor keys, values;  ///< [B, K, capacity, E], or undefined: see `counted_rope`
  CountedRows rows;
  ScoreGradient score;
  bool overwrites = false;  ///< nobody else wants the states: without gradients their memory holds the result
  WeightCopies* copies = nullptr;  ///< may have the weights in the states' type
  GradientRooms* rooms = nullptr;  ///< may have places for gradients of products' weights
};

/// x + f(x) at active tokens, x at the others, f being attention(norm(x)), then mlp(norm(x + that)), or one
/// of the two: [B, T, D] → [B, T, D]. Explored tokens are computed for their score's gradient. REQUIRES texts
/// that begin here.
at::Tensor counted_block(const at::Tensor& x_BTD, const CountedWeights& weights, const CountedBlock& block);

}  // namespace fathom::kernels
