// Scaled dot-product attention of whole sequences of 16 bits on a Hopper GPU, whose scores stay on the chip.
// Sources: Dao et al., "FlashAttention", 2022; Shah et al., "FlashAttention-3", 2024.
// B batch, H heads, K key-value heads (a divisor of H), T tokens, E head size.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace fathom::kernels {

/// Whether `flash_attention` takes these and is the faster way (where heads share keys that is not measured):
/// heads of 64 or 128, no mask, as many queries as keys, each token's heads side by side in memory. Where
/// something learns, cuDNN has the backward pass; where heads share keys, there is one token, or LibTorch is
/// told to use deterministic algorithms it is ours, of heads of 64.
bool has_flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const at::Tensor& mask);

/// As `attention` (kernels/attention.h) without a mask.
at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal);

namespace flash_attention_ref {
/// The result [B, H, T, E], and float32 [B, H, T], logarithms of the rows' sums of exponentials.
std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                           bool causal);
/// Gradients of q, k and v. `y`, `sums_BHT`: the forward pass's.
std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& q,
                                                        const at::Tensor& k, const at::Tensor& v,
                                                        const at::Tensor& y, const at::Tensor& sums_BHT,
                                                        bool causal);
}  // namespace flash_attention_ref

}  // namespace fathom::kernels
