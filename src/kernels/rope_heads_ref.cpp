#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/neg.h>

#include "kernels/rope_heads.h"

namespace fathom::kernels::rope_heads_ref {
namespace {

/// Rotates the two halves of [B, heads, T, E] against each other by angles [T, E/2], in float32 or wider.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos_TF, const at::Tensor& sin_TF) {
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto parts = x.to(wide).chunk(2, -1);
  return at::cat({parts[0] * cos_TF - parts[1] * sin_TF, parts[1] * cos_TF + parts[0] * sin_TF}, -1)
      .to(x.scalar_type());
}

}  // namespace

Heads forward(const at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, int64_t heads,
              int64_t kv_heads) {
  const int64_t all_heads = heads + 2 * kv_heads;
  const auto x = qkv.view({qkv.size(0), qkv.size(1), all_heads, qkv.size(2) / all_heads}).transpose(1, 2);
  const auto rotated = rotate(x.narrow(1, 0, heads + kv_heads), cos_TF, sin_TF);
  return {rotated.narrow(1, 0, heads), rotated.narrow(1, heads, kv_heads),
          x.narrow(1, heads + kv_heads, kv_heads).contiguous()};
}

at::Tensor backward(const at::Tensor& grad_q, const at::Tensor& grad_k, const at::Tensor& grad_v,
                    const at::Tensor& cos_TF, const at::Tensor& sin_TF) {
  const auto turned_back = rotate(at::cat({grad_q, grad_k}, 1), cos_TF, at::neg(sin_TF));
  return at::cat({turned_back, grad_v}, 1).transpose(1, 2).flatten(2);
}

}  // namespace fathom::kernels::rope_heads_ref
