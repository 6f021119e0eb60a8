// Attention inside windows, with a learned bias by relative position.
// B images, W windows of an image, T places, H heads, E head size.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace fathom::kernels {

/// `qkv`: [B, W, T, 3·H·E], queries, keys, values behind each other; `bias_HTT`: [H, T, T];
/// `mask_WTT`: [W, T, T] added to the logits, or undefined. Result: [B, W, T, H·E]. Two batched products
/// around `window_softmax`: on windows this small, LibTorch's fused attention is slower, with the bias's
/// gradient.
at::Tensor window_attention(const at::Tensor& qkv, const at::Tensor& bias_HTT, const at::Tensor& mask_WTT);

}  // namespace fathom::kernels
