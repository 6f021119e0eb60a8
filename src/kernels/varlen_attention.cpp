#include "kernels/varlen_attention.h"

#include <ATen/ops/alias.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/logical_or.h>

#include <vector>

#include "base/error.h"
#include "kernels/attention.h"

namespace fathom::kernels {
namespace {

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const VarlenLayout& layout) {
  const at::Tensor& start = layout.start_S1;
  FATHOM_CHECK(q.dim() == 3 && k.dim() == 3 && v.sizes() == k.sizes() && q.size(1) == k.size(1) &&
                   q.size(2) == k.size(2) && k.size(0) > 0 && q.size(0) % k.size(0) == 0,
               "[varlen_attention] expected queries [H, N, E], keys and values [K, N, E], got {} and {} "
               "dimensions, {} and {} rows",
               q.dim(), k.dim(), q.size(1), k.size(1));
  FATHOM_CHECK(start.dim() == 1 && start.numel() > 0 && start.scalar_type() == at::kLong &&
                   start.device().is_cpu() && start.is_contiguous(),
               "[varlen_attention] expected int64 offsets [S + 1] on the CPU");
  const auto* offsets = start.const_data_ptr<int64_t>();
  bool rises = offsets[0] == 0;
  for (int64_t s = 1; s < start.numel(); ++s) rises = rises && offsets[s - 1] <= offsets[s];
  FATHOM_CHECK(rises && offsets[start.numel() - 1] == q.size(1),
               "[varlen_attention] expected offsets that rise from 0 to {} rows", q.size(1));
  FATHOM_CHECK(!layout.key_N.defined() ||
                   (layout.key_N.scalar_type() == at::kBool && layout.key_N.numel() == q.size(1)),
               "[varlen_attention] expected one bool a row");
}

/// Which rows of one sequence see which: [n, n], or undefined where all (or all before) are seen.
at::Tensor mask_of(const VarlenLayout& layout, int64_t start, int64_t count) {
  if (!layout.key_N.defined()) return {};
  const auto key_N = layout.key_N.narrow(0, start, count);
  const auto self = at::eye(count, key_N.options());
  const auto mask = at::logical_or(key_N.unsqueeze(0), self);
  return layout.causal ? mask.tril() : mask;
}

}  // namespace

at::Tensor varlen_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const VarlenLayout& layout) {
  check(q, k, v, layout);
  std::vector<at::Tensor> parts;
  const auto* offsets = layout.start_S1.const_data_ptr<int64_t>();
  for (int64_t s = 0; s + 1 < layout.start_S1.numel(); ++s) {
    const int64_t start = offsets[s], count = offsets[s + 1] - start;
    if (count == 0) continue;
    const auto part = [&](const at::Tensor& x) { return x.narrow(1, start, count).unsqueeze(0); };
    const auto mask = mask_of(layout, start, count);
    parts.push_back(attention(part(q), part(k), part(v), mask, layout.causal && !mask.defined()).squeeze(0));
  }
  if (parts.empty()) return at::alias(q);
  return parts.size() == 1 ? parts.front() : at::cat(parts, 1);
}

}  // namespace fathom::kernels
