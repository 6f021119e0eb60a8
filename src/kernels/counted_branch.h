// The two branches of an encoder's layer (Swin's) over the rows that the device counts: with gradients, and
// without a wait of the host. Letters as in counted_layers.h and counted_windows.h, M inner width.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/counted_gradients.h"
#include "kernels/counted_windows.h"
#include "kernels/weight_copies.h"
#include "tensor/gradient_rooms.h"

namespace fathom::kernels {

/// Of a layer norm, of any floating type.
struct CountedNorm {
  at::Tensor weight, bias;  ///< [D]
  double eps = 1e-5;
};

/// Of any floating type; products take them in that of the states.
struct CountedFeedForwardWeights {
  CountedNorm norm;
  at::Tensor up, up_bias;      ///< [M, D], [M]
  at::Tensor down, down_bias;  ///< [D, M], [D]
};
struct CountedWindowWeights {
  CountedNorm norm;
  at::Tensor qkv, qkv_bias;        ///< [3D, D], [3D] or undefined
  at::Tensor output, output_bias;  ///< [D, D], [D]
  at::Tensor position_HTT;         ///< bias by relative position
};

struct CountedBranch {
  CountedRows rows;                ///< of tokens; of windows where attention is in windows
  ScoreGradient score;             ///< of these
  RowDrop drop;                    ///< of the branch; in windows by sample alone
  at::Tensor key_B;                ///< int64; undefined: nothing is dropped
  WeightCopies* copies = nullptr;  ///< may have the weights in the states' type
  GradientRooms* rooms = nullptr;  ///< may have places for gradients of products' weights
};

/// x + down(GELU(up(norm(x)))) at active tokens, x at the others: [B, T, D] → [B, T, D]. Explored tokens are
/// computed for their score's gradient.
at::Tensor counted_feed_forward(const at::Tensor& x_BTD, const CountedFeedForwardWeights& weights,
                                const CountedBranch& branch);

/// x + attention(norm(x)) in active windows, x in the others: [B, height, width, D] → the same.
at::Tensor counted_window_branch(const at::Tensor& x, const CountedWindowWeights& weights,
                                 const WindowShape& shape, const CountedBranch& branch);

}  // namespace fathom::kernels
