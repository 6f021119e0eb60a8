#include "kernels/varlen_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention.h>
#include <ATen/ops/alias.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
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

/// Whether flash attention takes all sequences at once.
bool flash_fits(const at::Tensor& q) {
  const bool half = q.scalar_type() == at::kHalf || q.scalar_type() == at::kBFloat16;
  return q.is_cuda() && half && q.size(2) % 8 == 0 && q.size(2) <= 256;
}

/// `start`: int32 [S + 1], on the device; `longest`: no sequence has more rows.
at::Tensor flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& start,
                 int64_t longest, bool causal) {
  if (longest == 0) return at::alias(q);
  return std::get<0>(at::_flash_attention_forward(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1),
                                                  start, start, longest, longest, /*dropout_p=*/0.0, causal,
                                                  /*return_debug_mask=*/false))
      .transpose(0, 1);
}

constexpr int64_t kQueriesAtATime = 1024;
constexpr int64_t kBiasAlignment = 8;  ///< elements of a row, as LibTorch's kernel wants it

/// Rows that are no keys: few, so one masked product over the rows of all sequences serves them. The kernel
/// is named, since LibTorch's first choice, cuDNN's, is prepared anew for each number of rows.
at::Tensor queries_alone(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const VarlenLayout& layout, const at::Tensor& start, const at::Tensor& row_M) {
  const int64_t rows = q.size(1), heads = q.size(0), repeats = heads / k.size(0);
  const int64_t room = (rows + kBiasAlignment - 1) / kBiasAlignment * kBiasAlignment;
  const auto all_N = at::arange(rows, row_M.options());
  const auto sequence_N = at::searchsorted(start.slice(0, 1), all_N, /*out_int32=*/false, /*right=*/true);
  const auto every_k = k.repeat_interleave(repeats, 0).unsqueeze(0),
             every_v = v.repeat_interleave(repeats, 0).unsqueeze(0);
  std::vector<at::Tensor> parts;
  for (const at::Tensor& row_m : row_M.split(kQueriesAtATime)) {
    const auto of_row = row_m.unsqueeze(1);
    auto mask = layout.key_N.unsqueeze(0).logical_or(of_row.eq(all_N)) &
                sequence_N.index_select(0, row_m).unsqueeze(1).eq(sequence_N);
    if (layout.causal) mask = mask & of_row.ge(all_N);
    const auto bias = at::zeros({row_m.numel(), room}, q.options().requires_grad(false))
                          .narrow(1, 0, rows)
                          .masked_fill_(mask.logical_not(), -std::numeric_limits<double>::infinity());
    parts.push_back(std::get<0>(at::_scaled_dot_product_efficient_attention(
                                    q.index_select(1, row_m).unsqueeze(0), every_k, every_v,
                                    bias.expand({1, heads, -1, -1}), /*compute_log_sumexp=*/true))
                        .squeeze(0));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts, 1);
}

/// All sequences in a few operations, whatever their number.
at::Tensor on_gpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const VarlenLayout& layout) {
  const auto* offsets = layout.start_S1.const_data_ptr<int64_t>();
  int64_t longest = 0;
  for (int64_t s = 1; s < layout.start_S1.numel(); ++s)
    longest = std::max(longest, offsets[s] - offsets[s - 1]);
  const auto start = layout.start_S1.to(q.device());
  if (!layout.key_N.defined()) return flash(q, k, v, start.to(at::kInt), longest, layout.causal);
  const auto key_n = at::nonzero(layout.key_N).squeeze(1);
  const auto alone_m = at::nonzero(layout.key_N.logical_not()).squeeze(1);
  const auto keys_before = at::constant_pad_nd(layout.key_N.cumsum(0), {1, 0});
  const auto key_start = keys_before.index_select(0, start).to(at::kInt);
  const auto rows = [](const at::Tensor& x, const at::Tensor& row) { return x.index_select(1, row); };
  const auto of_keys = flash(rows(q, key_n), rows(k, key_n), rows(v, key_n), key_start,
                             key_n.numel() > 0 ? longest : 0, layout.causal);
  if (alone_m.numel() == 0) return of_keys;
  const auto of_others = queries_alone(q, k, v, layout, start, alone_m);
  const auto order = at::argsort(at::cat({key_n, alone_m}));
  return at::cat({of_keys, of_others}, 1).index_select(1, order);
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
  if (flash_fits(q)) return on_gpu(q, k, v, layout);
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
