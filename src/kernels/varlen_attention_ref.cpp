#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/searchsorted.h>

#include "kernels/attention.h"
#include "kernels/varlen_attention.h"

namespace fathom::kernels::varlen_attention_ref {

at::Tensor apply(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const VarlenLayout& layout) {
  const int64_t rows = q.size(1);
  if (rows == 0) return q;
  const auto place_N = at::arange(rows, layout.start_S1.options());
  const auto sequence_N =
      at::searchsorted(layout.start_S1, place_N, /*out_int32=*/false, /*right=*/true).to(q.device());
  auto sees = sequence_N.unsqueeze(0).eq(sequence_N.unsqueeze(1));
  if (layout.key_N.defined())
    sees = at::logical_and(sees, at::logical_or(layout.key_N.unsqueeze(0), at::eye(rows, sees.options())));
  if (layout.causal) sees = sees.tril();
  return attention(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), sees, /*causal=*/false).squeeze(0);
}

}  // namespace fathom::kernels::varlen_attention_ref
