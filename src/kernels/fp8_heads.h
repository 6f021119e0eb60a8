// Queries, keys and values of operands in FP8. B batch, T tokens, H heads, K key-value heads, E head size.
#pragma once

#include "kernels/fp8_linear.h"
#include "kernels/fp8_rows.h"
#include "kernels/rope_heads.h"

namespace fathom::kernels {

/// Where heads stand, and how many there are (`rope_heads`).
struct HeadRotation {
  at::Tensor cos_TF, sin_TF;
  HeadLayout layout;
};

/// Turns the queries and keys of `qkv`, dense [B, T, (H + 2K)·E], where they lie. No gradient.
void rope_heads_in_place(at::Tensor qkv, const HeadRotation& rotation);

/// The gradient of `rope_heads` by its input, as a matrix [B·T, (H + 2K)·E], of those by its results, which
/// are bfloat16.
Fp8Pair fp8_rope_heads_backward(const Heads& grads, const HeadRotation& rotation, const Fp8Wish& wish,
                                const at::Tensor& beyond = {});

/// `x`: [B, T, D]; `weight`: float32 [(H + 2K)·E, D]. The numbers of `fp8_linear` and `rope_heads`: but heads
/// lie in the product's result, and its gradient is written in FP8 alone. REQUIRES `multiplies_in_fp8`.
Heads fp8_heads(const Fp8Rows& x, const at::Tensor& weight, const HeadRotation& rotation,
                const Fp8Products& products, GradientRooms* rooms);

}  // namespace fathom::kernels
