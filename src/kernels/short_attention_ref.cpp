#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>

#include "kernels/short_attention.h"

namespace fathom::kernels::short_attention_ref {
namespace {

double scale_of(const at::Tensor& q) {
  return 1.0 / std::sqrt(static_cast<double>(q.size(3)));
}

/// A key-value head for each head of queries.
at::Tensor repeated(const at::Tensor& x, const at::Tensor& q) {
  return x.repeat_interleave(q.size(1) / x.size(1), 1);
}

/// The sum over the heads of queries that share it.
at::Tensor shared(const at::Tensor& grad_BHSE, const at::Tensor& x) {
  return grad_BHSE.unflatten(1, {x.size(1), -1}).sum(2);
}

/// [B, H, T, S]
at::Tensor probabilities(const at::Tensor& q, const at::Tensor& k, const std::optional<at::Tensor>& mask,
                         bool causal) {
  auto score = at::matmul(q, repeated(k, q).transpose(2, 3)) * scale_of(q);
  auto hidden = [&](const at::Tensor& seen) {
    score = score.masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
  };
  if (mask) hidden(*mask);
  if (causal) hidden(at::ones({q.size(2), k.size(2)}, q.options().dtype(at::kBool)).tril());
  return at::softmax(score, -1).nan_to_num(0.0);
}

}  // namespace

at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   const std::optional<at::Tensor>& mask, bool causal) {
  return at::matmul(probabilities(q, k, mask, causal), repeated(v, q));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& q,
                                                        const at::Tensor& k, const at::Tensor& v,
                                                        const std::optional<at::Tensor>& mask, bool causal) {
  const auto p = probabilities(q, k, mask, causal);
  const auto grad_p = at::matmul(grad, repeated(v, q).transpose(2, 3));
  const auto grad_score = p * (grad_p - (grad_p * p).sum(-1, true)) * scale_of(q);
  return {at::matmul(grad_score, repeated(k, q)), shared(at::matmul(grad_score.transpose(2, 3), q), k),
          shared(at::matmul(p.transpose(2, 3), grad), v)};
}

}  // namespace fathom::kernels::short_attention_ref
