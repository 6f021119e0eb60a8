// Rows that the device counts, on a GPU: checks, memory and registration.
#include "cuda/counted_rows.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/matmul.h>
#include <ATen/record_function.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <cmath>

#include "cuda/counted_product.h"
#include "cuda/ragged_attention.h"
#include "cuda/registration.h"
#include "cuda/rows_of.h"
#include "cuda/stream_branch.h"

namespace fathom::cuda {
namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

/// Hopper alone has products of as many rows as the device counts.
bool counts_rows(const at::Tensor& x) {
  return at::cuda::getDeviceProperties(x.device().index())->major == 9;
}

Two norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight, double eps,
         const at::Tensor& place, const at::Tensor& start) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ElementType type = check_dense(x, "gathered_rms_norm");
  const int64_t dim = x.size(-1);
  FATHOM_CHECK(weight.numel() == dim && weight.scalar_type() == x.scalar_type() && weight.is_contiguous() &&
                   x.numel() == place.numel() * dim &&
                   (!y.defined() || (y.sizes() == at::IntArrayRef{place.numel(), dim} &&
                                     check_dense(y, "added_rms_norm") == type)),
               "[gathered_rms_norm] expected rows and weights of {} elements of one type", dim);
  auto normed = at::empty({place.numel(), dim}, x.options());
  auto sums = y.defined() ? at::empty_like(normed) : at::Tensor();
  const RowNormArgs args = {.rows = rows_of(place, start),
                            .x = x.const_data_ptr(),
                            .added = y.defined() ? y.const_data_ptr() : nullptr,
                            .weight = weight.const_data_ptr(),
                            .sums = y.defined() ? sums.mutable_data_ptr() : nullptr,
                            .y = normed.mutable_data_ptr(),
                            .dim = dim,
                            .eps = static_cast<float>(eps)};
  C10_CUDA_CHECK(launch_row_norm(type, args, stream()));
  return {sums, normed};
}

at::Tensor gathered_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                             const at::Tensor& place, const at::Tensor& start) {
  return std::get<1>(norm(x.contiguous(), {}, weight, eps, place, start));
}

Two added_rms_norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight, double eps,
                   const at::Tensor& place, const at::Tensor& start) {
  return norm(x.contiguous(), y, weight, eps, place, start);
}

/// On other cards than Hopper's, and for odd widths, rows that are not in use are multiplied too.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight_in, const at::Tensor& start,
                  int64_t expected) {
  const c10::cuda::CUDAGuard guard(x.device());
  const auto weight = weight_in.contiguous();
  const ElementType type = element_type_of(x, "counted_linear");
  const int64_t rows = x.size(0), in = x.size(1), out = weight.size(0);
  const bool fits = at::cuda::getCurrentDeviceProperties()->major == 9 && x.is_contiguous() &&
                    counted_product_fits(type, rows, in, out) &&
                    are_aligned16({x.const_data_ptr(), weight.const_data_ptr()}) &&
                    weight.scalar_type() == x.scalar_type();
  if (!fits) return at::matmul(x, weight.t());
  auto y = at::empty({rows, out}, x.options());
  const CountedProductArgs args = {.x = x.const_data_ptr(),
                                   .weight = weight.const_data_ptr(),
                                   .y = y.mutable_data_ptr(),
                                   .count = count_of(start),
                                   .rows = rows,
                                   .expected = expected_of(expected, rows),
                                   .in_dim = in,
                                   .out_dim = out};
  C10_CUDA_CHECK(launch_counted_product(type, args, stream()));
  return y;
}

at::Tensor swiglu(const at::Tensor& gate_up, const at::Tensor& start) {
  const c10::cuda::CUDAGuard guard(gate_up.device());
  const ElementType type = check_dense(gate_up, "counted_swiglu");
  const int64_t inner = gate_up.size(1) / 2, sequences = start.numel() - 1;
  FATHOM_CHECK(inner % 8 == 0, "[counted_swiglu] expected halves in vectors of 8, got {}", inner);
  auto y = at::empty({gate_up.size(0), inner}, gate_up.options());
  const RowSwigluArgs args = {
      .rows = {nullptr, start.const_data_ptr<int32_t>(), sequences, gate_up.size(0) / sequences},
      .gate_up = gate_up.const_data_ptr(),
      .y = y.mutable_data_ptr(),
      .inner = inner};
  C10_CUDA_CHECK(launch_row_swiglu(type, args, stream()));
  return y;
}

void rope(at::Tensor& qkv, const at::Tensor& cos, const at::Tensor& sin, int64_t heads, int64_t kv_heads,
          const at::Tensor& place, const at::Tensor& start, const Optional& keys, const Optional& values) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  const ElementType type = check_dense(qkv, "counted_rope");
  const int64_t head_size = qkv.size(1) / (heads + 2 * kv_heads);
  const RowsArgs rows = rows_of(place, start);
  FATHOM_CHECK(head_size % 16 == 0 && qkv.size(1) == head_size * (heads + 2 * kv_heads) &&
                   cos.is_contiguous() && sin.is_contiguous() && cos.scalar_type() == at::kFloat &&
                   cos.numel() == rows.tokens * head_size / 2 && sin.sizes() == cos.sizes(),
               "[counted_rope] expected float32 angles of {} tokens and heads in vectors of 16", rows.tokens);
  for (const Optional& cache : {keys, values})
    FATHOM_CHECK(!cache || (cache->is_contiguous() && cache->scalar_type() == qkv.scalar_type() &&
                            cache->size(0) == rows.sequences && cache->size(1) == kv_heads &&
                            cache->size(2) >= rows.tokens && cache->size(3) == head_size),
                 "[counted_rope] expected a cache with room for {} tokens", rows.tokens);
  const RowRopeArgs args = {.rows = rows,
                            .qkv = qkv.mutable_data_ptr(),
                            .cos = cos.const_data_ptr<float>(),
                            .sin = sin.const_data_ptr<float>(),
                            .keys = keys ? keys->mutable_data_ptr() : nullptr,
                            .values = values ? values->mutable_data_ptr() : nullptr,
                            .heads = heads,
                            .kv_heads = kv_heads,
                            .head_size = head_size,
                            .capacity = keys ? keys->size(2) : 0};
  C10_CUDA_CHECK(launch_row_rope(type, args, stream()));
}

at::Tensor part_of(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t from, int64_t count) {
  return qkv.view({qkv.size(0), heads + 2 * kv_heads, -1}).narrow(1, from, count);
}

/// LibTorch's flash attention of the active rows, which takes the sequences' borders from the device. Whether
/// it was this the backward pass tells by the sums' dimensions.
Two flash_attention(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, const at::Tensor& start,
                    int64_t tokens, bool causal) {
  const at::DisableRecordFunctionGuard counted_once;  // as this operation
  const auto part = [&](int64_t from, int64_t count) { return part_of(qkv, heads, kv_heads, from, count); };
  auto [y_NHE, sums, seed, offset, mask] = at::_flash_attention_forward(
      part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads), start, start, tokens, tokens,
      /*dropout_p=*/0.0, causal, /*return_debug_mask=*/false);
  return {y_NHE.flatten(1), sums};
}

/// Explored rows are few, and what they wait for is memory: they run beside the attention of the active ones,
/// whose blocks come first and leave them room as they end.
Three attention(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, bool causal, const at::Tensor& place,
                const at::Tensor& start, const Optional& used) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  const RowsArgs rows = rows_of(place, start);
  const auto explore = [&](const at::Tensor& y, cudaStream_t on) {
    const ElementType type = check_dense(qkv, "counted_attention");
    FATHOM_CHECK(check_dense(y, "counted_attention") == type && used->scalar_type() == at::kInt,
                 "[counted_attention] expected the number of all rows");
    const ExploredAttentionArgs args = {.rows = rows,
                                        .used = count_of(*used),
                                        .qkv = qkv.const_data_ptr(),
                                        .y = y.mutable_data_ptr(),
                                        .heads = heads,
                                        .kv_heads = kv_heads,
                                        .head_size = y.size(1) / heads,
                                        .causal = causal};
    C10_CUDA_CHECK(launch_explored_attention(type, args, on));
  };
  std::optional<StreamBranch> branch;
  if (used) branch.emplace();  // which waits for what is here already, and for no more
  const RaggedRows ragged = {.qkv = qkv,
                             .heads = heads,
                             .kv_heads = kv_heads,
                             .start = start,
                             .tokens = rows.tokens,
                             .causal = causal};
  if (const auto made = ragged_attention(ragged)) {
    if (used) {
      explore(made->y, branch->stream());
      branch->join();
    }
    return {made->y, made->sums, made->offsets};
  }
  auto [y, sums] = flash_attention(qkv, heads, kv_heads, start, rows.tokens, causal);
  if (used) explore(y, stream());
  return {y, sums, at::empty({0}, start.options())};
}

at::Tensor dropout(const at::Tensor& x, const at::Tensor& key_in, const at::Tensor& place,
                   const at::Tensor& start, double share, double path_share, int64_t place_in_model) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ElementType type = check_dense(x, "counted_dropout");
  const auto key = key_in.contiguous();
  FATHOM_CHECK(key.device() == x.device(), "[counted_dropout] expected keys on {}", x.device().str());
  auto y = at::empty_like(x);
  const auto threshold = [](double probability) {
    return static_cast<uint32_t>(std::ldexp(probability, 32));
  };
  const RowDropoutArgs args = {.rows = rows_of(place, start),
                               .x = x.const_data_ptr(),
                               .y = y.mutable_data_ptr(),
                               .key = key.const_data_ptr<int64_t>(),
                               .dim = x.size(1),
                               .stream = 2 * place_in_model,
                               .threshold = threshold(share),
                               .sequence_threshold = threshold(path_share),
                               .scale = static_cast<float>(1 / (1 - share)),
                               .sequence_scale = static_cast<float>(1 / (1 - path_share))};
  C10_CUDA_CHECK(launch_row_dropout(type, args, stream()));
  return y;
}

void merge_into(at::Tensor& y, const at::Tensor& x, const Optional& h, const at::Tensor& added,
                const at::Tensor& slot, const at::Tensor& start) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ElementType type = check_dense(x, "merged_rows");
  const int64_t dim = x.size(-1);
  FATHOM_CHECK(check_dense(added, "merged_rows") == type && added.size(1) == dim &&
                   (!h || (check_dense(*h, "merged_rows") == type && added.sizes() == h->sizes())) &&
                   slot.numel() * dim == x.numel() && slot.scalar_type() == at::kInt && slot.is_contiguous(),
               "[merged_rows] expected rows of {} elements", dim);
  const MergeRowsArgs args = {.slot = slot.const_data_ptr<int32_t>(),
                              .count = count_of(start),
                              .x = x.const_data_ptr(),
                              .h = h ? h->const_data_ptr() : nullptr,
                              .added = added.const_data_ptr(),
                              .y = y.mutable_data_ptr(),
                              .places = slot.numel(),
                              .dim = dim};
  C10_CUDA_CHECK(launch_merge_rows(type, args, stream()));
}

at::Tensor merged_rows(const at::Tensor& x_in, const Optional& h, const at::Tensor& added,
                       const at::Tensor& slot, const at::Tensor& start) {
  const auto x = x_in.contiguous();
  auto y = at::empty_like(x);
  merge_into(y, x, h, added, slot, start);
  return y;
}

void merge_rows(at::Tensor& x, const Optional& h, const at::Tensor& added, const at::Tensor& slot,
                const at::Tensor& start) {
  merge_into(x, x, h, added, slot, start);
}

}  // namespace

void register_counted_rows(torch::Library& library) {
  library.impl("counts_rows", counts_rows);
  library.impl("gathered_rms_norm", gathered_rms_norm);
  library.impl("added_rms_norm", added_rms_norm);
  library.impl("counted_linear", linear);
  library.impl("counted_swiglu", swiglu);
  library.impl("counted_rope_", rope);
  library.impl("counted_attention", attention);
  library.impl("counted_dropout", dropout);
  library.impl("merged_rows", merged_rows);
  library.impl("merge_rows_", merge_rows);
}

}  // namespace fathom::cuda
