// Scaled dot-product attention of short sequences on a CPU, a head at a time. Without it each of a head's
// products is one call of a library, which takes longer than the product.
// B batch, H heads, K key-value heads (a divisor of H), T queries, S keys, E head size.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace fathom::kernels {

/// Whether `short_attention` is the faster way: on a CPU, where several queries look and what one head of
/// keys takes lies in the second cache; of 16 bits, where nothing learns (kernels/pass_learns.h), only the
/// shortest.
bool has_short_attention(const at::Tensor& q, const at::Tensor& k);

/// As `attention` (kernels/attention.h), operands of one type; computes in float32 or wider. A query that may
/// see nothing has zeros.
at::Tensor short_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& mask, bool causal);

namespace short_attention_ref {
at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   const std::optional<at::Tensor>& mask, bool causal);
/// Gradients of q, k and v.
std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& q,
                                                        const at::Tensor& k, const at::Tensor& v,
                                                        const std::optional<at::Tensor>& mask, bool causal);
}  // namespace short_attention_ref

}  // namespace fathom::kernels
