// Attention inside shifted windows, straight on the feature map: window_partition, window_attention and
// window_merge in one. Source: Liu et al., "Swin Transformer", 2021, section 3.2.
// B images, H heads, E head size, T = side² places of a window.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "kernels/window.h"

namespace fathom::kernels {

/// Whether there is a fused kernel for a map that windows divide: on a CPU for windows of at most 256 places;
/// on a GPU with our plug-in for half or bfloat16 maps, at most 64 places and heads of 32, where a block of
/// the card may have as much shared memory as it takes: while gradients are recorded, as its backward pass
/// takes too (225 KB for windows of 7 with a shift). Without one the three operations are the better way.
bool has_shifted_window_attention(const at::Tensor& x, const WindowShape& shape, int64_t head_size);

/// `qkv`: [B, height, width, 3·H·E], queries, keys, values behind each other; `bias_HTT`: [H, T, T]. Places
/// that the shift joined do not see each other. Windows divide the map. Result: [B, height, width, H·E].
at::Tensor shifted_window_attention(const at::Tensor& qkv, const at::Tensor& bias_HTT,
                                    const WindowShape& shape);

namespace shifted_window_attention_ref {
at::Tensor forward(const at::Tensor& qkv, const at::Tensor& bias_HTT, int64_t side, int64_t shift);
/// Gradients of qkv and bias.
std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& qkv,
                                            const at::Tensor& bias_HTT, int64_t side, int64_t shift);
}  // namespace shifted_window_attention_ref

}  // namespace fathom::kernels
