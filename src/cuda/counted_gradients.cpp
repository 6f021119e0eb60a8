// Backward passes of rows that the device counts, on a GPU: checks, memory and registration.
#include "cuda/counted_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/matmul.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "cuda/counted_product.h"
#include "cuda/ragged_attention.h"
#include "cuda/registration.h"
#include "cuda/rows_of.h"
#include "cuda/sum_of_parts.h"

namespace fathom::cuda {
namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

Two merged_rows_backward(const at::Tensor& grad, const Optional& part, const at::Tensor& added,
                         const Optional& score, const Optional& multiplier_in, const Optional& sequence_share,
                         double share, double explore, bool by_row, const at::Tensor& slot,
                         const at::Tensor& start) {
  const c10::cuda::CUDAGuard guard(grad.device());
  const ElementType type = check_dense(grad, "merged_rows_backward");
  const int64_t dim = grad.size(-1), places = slot.numel();
  const int64_t sequences = start.numel() - 1;
  FATHOM_CHECK(
      (!part || (check_dense(*part, "merged_rows_backward") == type && part->sizes() == added.sizes())) &&
          (!sequence_share || (sequence_share->is_contiguous() && sequence_share->numel() == sequences &&
                               sequence_share->scalar_type() == at::kFloat)) &&
          check_dense(added, "merged_rows_backward") == type && added.size(1) == dim &&
          grad.numel() == places * dim &&
          (!score ||
           (score->is_contiguous() && score->scalar_type() == at::kFloat && score->numel() == places)),
      "[merged_rows_backward] expected rows of {} elements and float32 scores", dim);
  auto grad_rows = at::empty_like(added);
  auto grad_score = score ? at::empty_like(*score)
                          : at::empty({by_row ? added.size(0) : 0}, grad.options().dtype(at::kFloat));
  const auto multiplier = multiplier_in ? multiplier_in->to(grad.device(), at::kDouble) : at::Tensor();
  const MergeGradArgs args = {
      .slot = slot.const_data_ptr<int32_t>(),
      .count = count_of(start),
      .grad = grad.const_data_ptr(),
      .part = part ? part->const_data_ptr() : nullptr,
      .added = added.const_data_ptr(),
      .grad_rows = grad_rows.mutable_data_ptr(),
      .score = score ? score->const_data_ptr<float>() : nullptr,
      .multiplier = multiplier.defined() ? multiplier.const_data_ptr<double>() : nullptr,
      .sequence_share = sequence_share ? sequence_share->const_data_ptr<float>() : nullptr,
      .share = static_cast<float>(share),
      .explored_weight = static_cast<float>(1 / explore),
      .grad_score = score || by_row ? grad_score.mutable_data_ptr<float>() : nullptr,
      .tokens = places / sequences,
      .places = places,
      .dim = dim};
  C10_CUDA_CHECK(launch_merge_grad(type, args, stream()));
  return {grad_rows, grad_score};
}

bool takes_products(const at::Tensor& grad, const at::Tensor& other, int64_t in, int64_t out) {
  return at::cuda::getCurrentDeviceProperties()->major == 9 && grad.is_contiguous() &&
         other.is_contiguous() && grad.scalar_type() == other.scalar_type() &&
         counted_product_fits(element_type_of(grad, "counted_products"), grad.size(0), in, out) &&
         are_aligned16({grad.const_data_ptr(), other.const_data_ptr()});
}

at::Tensor input_grad(const at::Tensor& grad, const at::Tensor& weight, const at::Tensor& start,
                      int64_t expected) {
  const c10::cuda::CUDAGuard guard(grad.device());
  const int64_t rows = grad.size(0), out = weight.size(0), in = weight.size(1);
  FATHOM_CHECK(grad.size(1) == out, "[counted_input_grad] expected gradients of {}, got {}", out,
               grad.size(1));
  if (!takes_products(grad, weight, in, out)) return at::matmul(grad, weight);
  auto grad_x = at::empty({rows, in}, grad.options());
  const CountedInputGradArgs args = {.grad = grad.const_data_ptr(),
                                     .weight = weight.const_data_ptr(),
                                     .grad_x = grad_x.mutable_data_ptr(),
                                     .count = count_of(start),
                                     .rows = rows,
                                     .expected = expected_of(expected, rows),
                                     .in_dim = in,
                                     .out_dim = out};
  C10_CUDA_CHECK(launch_counted_input_grad(element_type_of(grad, "counted_input_grad"), args, stream()));
  return grad_x;
}

void weight_grad(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& start, at::Tensor& result,
                 int64_t expected_in) {
  const c10::cuda::CUDAGuard guard(grad.device());
  const int64_t rows = grad.size(0), out = grad.size(1), in = x.size(1);
  const auto type = result.scalar_type();
  if (!takes_products(grad, x, in, out) || !are_aligned16({result.const_data_ptr()}) ||
      (type != grad.scalar_type() && type != at::kFloat)) {
    const auto free = at::arange(rows, start.options()).ge(start[-1]).unsqueeze(1);
    result.copy_(at::matmul(grad.masked_fill(free, 0).t(), x.masked_fill(free, 0)));
    return;
  }
  const int64_t expected = expected_of(expected_in, rows),
                bytes = counted_weight_grad_workspace_bytes(expected, in, out);
  const auto workspace = at::empty({bytes}, grad.options().dtype(at::kByte));
  const CountedWeightGradArgs args = {.grad = grad.const_data_ptr(),
                                      .x = x.const_data_ptr(),
                                      .grad_weight = result.mutable_data_ptr(),
                                      .count = count_of(start),
                                      .rows = rows,
                                      .expected = expected,
                                      .in_dim = in,
                                      .out_dim = out,
                                      .grad_weight_type = element_type_of(result, "counted_weight_grad"),
                                      .workspace = bytes > 0 ? workspace.mutable_data_ptr() : nullptr};
  C10_CUDA_CHECK(launch_counted_weight_grad(element_type_of(grad, "counted_weight_grad"), args, stream()));
}

at::Tensor swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up, const at::Tensor& start) {
  const c10::cuda::CUDAGuard guard(grad.device());
  const ElementType type = check_dense(grad, "counted_swiglu_backward");
  const int64_t inner = grad.size(1), sequences = start.numel() - 1;
  FATHOM_CHECK(check_dense(gate_up, "counted_swiglu_backward") == type && gate_up.size(1) == 2 * inner &&
                   gate_up.size(0) == grad.size(0),
               "[counted_swiglu_backward] expected rows of {}", 2 * inner);
  auto grad_gate_up = at::empty_like(gate_up);
  const RowSwigluGradArgs args = {
      .rows = {nullptr, start.const_data_ptr<int32_t>(), sequences, grad.size(0) / sequences},
      .grad = grad.const_data_ptr(),
      .gate_up = gate_up.const_data_ptr(),
      .grad_gate_up = grad_gate_up.mutable_data_ptr(),
      .inner = inner};
  C10_CUDA_CHECK(launch_row_swiglu_grad(type, args, stream()));
  return grad_gate_up;
}

/// What a norm's backward pass reads.
struct NormGradient {
  const at::Tensor& grad;
  const at::Tensor& x;
  const at::Tensor& weight;
  double eps;
  const at::Tensor& added;
  const at::Tensor& start;
};

/// Writes the gradient of x, of rows or of their places, and returns that of the weight.
at::Tensor norm_backward(const NormGradient& norm, const int32_t* place, at::Tensor& grad_x) {
  const c10::cuda::CUDAGuard guard(norm.grad.device());
  constexpr const char* kOp = "counted_rms_norm_backward";
  const ElementType type = check_dense(norm.grad, kOp);
  const int64_t dim = norm.grad.size(1), room = norm.grad.size(0), blocks = row_norm_grad_blocks(room, dim);
  FATHOM_CHECK(check_dense(norm.x, kOp) == type && check_dense(norm.added, kOp) == type &&
                   check_dense(norm.weight, kOp) == type && check_dense(grad_x, kOp) == type &&
                   norm.x.numel() == room * dim && norm.added.numel() == room * dim &&
                   grad_x.numel() == room * dim && norm.weight.numel() == dim,
               "[counted_rms_norm_backward] expected {} rows of {} elements of one type", room, dim);
  auto partial = at::empty({blocks, dim}, norm.grad.options().dtype(at::kFloat));
  const RowNormGradArgs args = {.place = place,
                                .count = count_of(norm.start),
                                .grad = norm.grad.const_data_ptr(),
                                .x = norm.x.const_data_ptr(),
                                .weight = norm.weight.const_data_ptr(),
                                .added = norm.added.const_data_ptr(),
                                .grad_x = grad_x.mutable_data_ptr(),
                                .partial = partial.mutable_data_ptr<float>(),
                                .dim = dim,
                                .blocks = blocks,
                                .eps = static_cast<float>(norm.eps)};
  C10_CUDA_CHECK(launch_row_norm_grad(type, args, stream()));
  return sum_of_parts(partial, at::kFloat);
}

Two rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight, double eps,
                      const at::Tensor& added, const at::Tensor& start) {
  auto grad_x = at::empty_like(x);
  auto grad_weight = norm_backward({grad, x, weight, eps, added, start}, nullptr, grad_x);
  return {grad_x, grad_weight};
}

at::Tensor gathered_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                                  double eps, const at::Tensor& added, at::Tensor& grad_x,
                                  const at::Tensor& place, const at::Tensor& start) {
  return norm_backward({grad, x, weight, eps, added, start}, rows_of(place, start).place, grad_x);
}

/// By what made the forward pass (counted_rows.cpp) if that has a backward pass, else by LibTorch's flash
/// attention, whose sums lie head by head.
Three attention_backward(const at::Tensor& grad_in, const at::Tensor& qkv, const at::Tensor& y,
                         const at::Tensor& sums_in, const at::Tensor& offsets, int64_t heads,
                         int64_t kv_heads, bool causal, const at::Tensor& place, const at::Tensor& start) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  const int64_t rows = qkv.size(0), tokens = rows_of(place, start).tokens;
  const auto grad = grad_in.contiguous();
  at::Tensor sums = sums_in;
  if (sums.dim() == 3) {
    const RaggedRows ragged = {
        .qkv = qkv, .heads = heads, .kv_heads = kv_heads, .start = start, .tokens = tokens, .causal = causal};
    if (auto made = ragged_attention_backward(ragged, grad, {y, sums, offsets})) return *std::move(made);
    sums = sums.squeeze(2).t().contiguous();
  }
  const auto all = qkv.view({rows, heads + 2 * kv_heads, -1});
  const auto by_head = [&](const at::Tensor& x) { return x.view({rows, heads, -1}); };
  // Of what it takes beside: the states of random numbers, for dropout alone.
  const auto unused = at::empty({}, start.options().dtype(at::kLong));
  return at::_flash_attention_backward(by_head(grad), all.narrow(1, 0, heads), all.narrow(1, heads, kv_heads),
                                       all.narrow(1, heads + kv_heads, kv_heads), by_head(y), sums, start,
                                       start, tokens, tokens,
                                       /*dropout_p=*/0.0, causal, unused, unused);
}

at::Tensor rope_backward(const at::Tensor& grad_q_in, const at::Tensor& grad_k_in,
                         const at::Tensor& grad_v_in, const at::Tensor& cos, const at::Tensor& sin,
                         const at::Tensor& place, const at::Tensor& start) {
  const c10::cuda::CUDAGuard guard(grad_q_in.device());
  constexpr const char* kOp = "counted_rope_backward";
  const auto grad_q = grad_q_in.contiguous(), grad_k = grad_k_in.contiguous(),
             grad_v = grad_v_in.contiguous();
  const RowsArgs rows = rows_of(place, start);
  const ElementType type = check_dense(grad_q, kOp);
  const int64_t heads = grad_q.size(1), kv_heads = grad_k.size(1), head_size = grad_q.size(2);
  FATHOM_CHECK(check_dense(grad_k, kOp) == type && check_dense(grad_v, kOp) == type && head_size % 16 == 0 &&
                   cos.is_contiguous() && sin.is_contiguous() && cos.scalar_type() == at::kFloat &&
                   cos.numel() == rows.tokens * head_size / 2 && sin.sizes() == cos.sizes(),
               "[counted_rope_backward] expected float32 angles of {} tokens and heads in vectors of 16",
               rows.tokens);
  auto grad_qkv = at::empty({grad_q.size(0), (heads + 2 * kv_heads) * head_size}, grad_q.options());
  const RowRopeGradArgs args = {.rows = rows,
                                .grad_q = grad_q.const_data_ptr(),
                                .grad_k = grad_k.const_data_ptr(),
                                .grad_v = grad_v.const_data_ptr(),
                                .cos = cos.const_data_ptr<float>(),
                                .sin = sin.const_data_ptr<float>(),
                                .grad_qkv = grad_qkv.mutable_data_ptr(),
                                .heads = heads,
                                .kv_heads = kv_heads,
                                .head_size = head_size};
  C10_CUDA_CHECK(launch_row_rope_grad(type, args, stream()));
  return grad_qkv;
}

}  // namespace

void register_counted_gradients(torch::Library& library) {
  library.impl("merged_rows_backward", merged_rows_backward);
  library.impl("counted_input_grad", input_grad);
  library.impl("counted_weight_grad", weight_grad);
  library.impl("counted_swiglu_backward", swiglu_backward);
  library.impl("counted_rms_norm_backward", rms_norm_backward);
  library.impl("gathered_rms_norm_backward_", gathered_norm_backward);
  library.impl("counted_attention_backward", attention_backward);
  library.impl("counted_rope_backward", rope_backward);
}

}  // namespace fathom::cuda
