// Splits packed query, key and value projections into heads and rotates queries and keys by their positions.
// Source: Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021, in the form of
// two half-vectors that Llama's published weights expect. B batch, T tokens, H heads, K key-value heads, E
// head size.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <tuple>

namespace fathom::kernels {

struct HeadLayout {
  int64_t heads = 0;
  int64_t kv_heads = 0;
};

/// Query, key and value, with dense rows of E and other strides as the device likes them: [B, H, T, E], [B,
/// K, T, E], [B, K, T, E].
using Heads = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// `qkv`: [B, T, (H + 2K)·E], queries first. `cos_TF`, `sin_TF`: float32 [T, E/2], angles of the tokens'
/// positions. No gradient flows to the angles.
Heads rope_heads(const at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF,
                 HeadLayout layout);

/// The same for a cache: keys and values are also written to `keys_BKTE` and `values_BKTE`, whose rows of E
/// are dense, in their type. Nothing learns through these.
Heads rope_heads_kept(const at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF,
                      HeadLayout layout, const at::Tensor& keys_BKTE, const at::Tensor& values_BKTE);

namespace rope_heads_ref {
Heads forward(const at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, int64_t heads,
              int64_t kv_heads);
at::Tensor backward(const at::Tensor& grad_q, const at::Tensor& grad_k, const at::Tensor& grad_v,
                    const at::Tensor& cos_TF, const at::Tensor& sin_TF);
}  // namespace rope_heads_ref

}  // namespace fathom::kernels
