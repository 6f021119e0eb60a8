#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>

#include <cmath>
#include <limits>

#include "kernels/flash_attention.h"

namespace fathom::kernels::flash_attention_ref {
namespace {

double scale_of(const at::Tensor& q) {
  return 1.0 / std::sqrt(static_cast<double>(q.size(3)));
}

/// A key-value head for each head of queries.
at::Tensor repeated(const at::Tensor& x, const at::Tensor& q) {
  return x.repeat_interleave(q.size(1) / x.size(1), 1);
}

at::Tensor scores(const at::Tensor& q, const at::Tensor& k, bool causal) {
  const auto score_BHTT = at::matmul(q, repeated(k, q).transpose(2, 3)) * scale_of(q);
  if (!causal) return score_BHTT;
  const auto seen_TT = at::ones({q.size(2), q.size(2)}, q.options().dtype(at::kBool)).tril();
  return score_BHTT.masked_fill(seen_TT.logical_not(), -std::numeric_limits<double>::infinity());
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                           bool causal) {
  const auto score_BHTT = scores(q, k, causal), sums_BHT = at::logsumexp(score_BHTT, -1);
  const auto weight_BHTT = at::exp(score_BHTT - sums_BHT.unsqueeze(-1));
  return {at::matmul(weight_BHTT, repeated(v, q)),
          q.scalar_type() == at::kDouble ? sums_BHT : sums_BHT.to(at::kFloat)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& q,
                                                        const at::Tensor& k, const at::Tensor& v,
                                                        const at::Tensor& y, const at::Tensor& sums_BHT,
                                                        bool causal) {
  const auto shared = [&](const at::Tensor& of_queries) {  // the sum over the heads that share keys
    return of_queries.unflatten(1, {k.size(1), -1}).sum(2);
  };
  const auto weight_BHTT = at::exp(scores(q, k, causal) - sums_BHT.unsqueeze(-1)).to(q.scalar_type());
  const auto product_BHT1 = (grad * y).sum(-1, /*keepdim=*/true);
  const auto grad_score_BHTT =
      weight_BHTT * (at::matmul(grad, repeated(v, q).transpose(2, 3)) - product_BHT1) * scale_of(q);
  return {at::matmul(grad_score_BHTT, repeated(k, q)), shared(at::matmul(grad_score_BHTT.transpose(2, 3), q)),
          shared(at::matmul(weight_BHTT.transpose(2, 3), grad))};
}

}  // namespace fathom::kernels::flash_attention_ref
