// Scaled dot-product attention: LibTorch's fused kernels in the type that is fast here, or ours, of whole
// sequences on a Hopper GPU (kernels/flash_attention.h) and of short ones on a CPU
// (kernels/short_attention.h). In 16 bits on a CPU the two round differently: with fewer than 8 queries,
// beyond what fits, and beyond 48 tokens where nothing learns it is LibTorch's. B batch, H heads, K key-value
// heads (a divisor of H), T queries, S keys, E head size.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

/// `q`: [B, H, T, E]; `k`, `v`: [B, K, S, E]; `mask`: bool, true where a query may look, broadcast to
/// [B, H, T, S], or undefined. With `causal` query t sees keys ≤ t, and there is no mask. Result: [B, H, T,
/// E], of which each token's heads lie together.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                     bool causal);

}  // namespace fathom::kernels
