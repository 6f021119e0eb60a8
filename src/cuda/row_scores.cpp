// Scores by a row's mean on a GPU: checks, memory and registration.
#include "cuda/row_scores.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "cuda/registration.h"
#include "cuda/rows_of.h"
#include "cuda/sum_of_parts.h"
#include "kernels/row_scores.h"

namespace fathom::cuda {
namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

int64_t chunks_of(const at::Tensor& both) {
  return (both.size(1) + kRowScoreChunk - 1) / kRowScoreChunk;
}

/// Without what belongs to one pass alone. `present` is dense, or nothing.
RowScoreArgs make_args(const at::Tensor& both, const at::Tensor& shift, const at::Tensor& out,
                       const Optional& present, const at::Tensor& sums) {
  const int64_t inner = out.numel(), sequences = both.size(0), tokens = both.size(1);
  FATHOM_CHECK(both.is_contiguous() && both.scalar_type() == at::kFloat && both.size(2) == 2 * inner &&
                   inner <= kernels::kMostRowScoreInner && sequences < 65536 && shift.numel() == 2 * inner &&
                   out.scalar_type() != at::kDouble && shift.scalar_type() == out.scalar_type() &&
                   shift.is_contiguous() && out.is_contiguous() &&
                   (!present || (present->is_contiguous() && present->scalar_type() == at::kBool &&
                                 present->numel() == sequences * tokens)),
               "[row_scores] expected dense float32 rows of a bottleneck of at most {}, got {}",
               kernels::kMostRowScoreInner, inner);
  return {.both = both.const_data_ptr<float>(),
          .shift = shift.const_data_ptr(),
          .out = out.const_data_ptr(),
          .bias = nullptr,
          .present = present ? present->const_data_ptr<bool>() : nullptr,
          .partial = sums.mutable_data_ptr<float>(),
          .score = nullptr,
          .sequences = sequences,
          .tokens = tokens,
          .inner = inner};
}

Optional dense(const Optional& present) {
  return present ? std::make_optional(present->contiguous()) : std::nullopt;
}

Two scores(const at::Tensor& both, const at::Tensor& shift, const at::Tensor& out, const at::Tensor& bias,
           const Optional& present_in) {
  const c10::cuda::CUDAGuard guard(both.device());
  const auto present = dense(present_in);
  auto score = at::empty({both.size(0), both.size(1)}, both.options()),
       sums = at::empty({both.size(0), chunks_of(both), out.numel() + 1}, both.options());
  if (score.numel() == 0) return {score, sums};
  RowScoreArgs args = make_args(both, shift, out, present, sums);
  FATHOM_CHECK(bias.scalar_type() == out.scalar_type(), "[row_scores] expected weights of one type");
  args.bias = bias.const_data_ptr();
  args.score = score.mutable_data_ptr<float>();
  C10_CUDA_CHECK(launch_row_scores(element_type_of(out, "row_scores"), args, stream()));
  return {score, sums};
}

Four backward(const at::Tensor& grad, const at::Tensor& both, const at::Tensor& sums, const at::Tensor& shift,
              const at::Tensor& out, const at::Tensor& scale, const Optional& present_in,
              at::ScalarType grad_type) {
  const c10::cuda::CUDAGuard guard(both.device());
  const int64_t inner = out.numel();
  auto grad_both = at::empty(both.sizes(), both.options().dtype(grad_type));
  auto parts = at::empty({both.size(0) * chunks_of(both), 3 * inner + 1}, both.options());
  const auto of = [&](const at::Tensor& total) {
    return Four{grad_both, total.narrow(0, 0, 2 * inner), total.narrow(0, 2 * inner, inner),
                total.narrow(0, 3 * inner, 1)};
  };
  if (both.numel() == 0) return of(at::zeros({3 * inner + 1}, both.options()));
  const auto present = dense(present_in);
  FATHOM_CHECK(grad.is_contiguous() && grad.scalar_type() == at::kFloat && scale.is_contiguous() &&
                   scale.scalar_type() == at::kFloat && grad.numel() * 2 * inner == both.numel() &&
                   scale.numel() == grad.numel() && sums.is_contiguous() &&
                   sums.numel() == both.size(0) * chunks_of(both) * (inner + 1),
               "[row_scores_backward] expected dense float32 gradients and scales of {} tokens",
               both.size(0) * both.size(1));
  RowScoreGradArgs args = {.forward = make_args(both, shift, out, present, sums)};
  args.grad = grad.const_data_ptr<float>();
  args.scale = scale.const_data_ptr<float>();
  args.grad_both = grad_both.mutable_data_ptr();
  args.sums = parts.mutable_data_ptr<float>();
  C10_CUDA_CHECK(launch_row_scores_backward(element_type_of(out, "row_scores_backward"),
                                            element_type_of(grad_both, "row_scores_backward"), args,
                                            stream()));
  return of(sum_of_parts(parts, at::kFloat));
}

}  // namespace

void register_row_scores(torch::Library& library) {
  library.impl("row_scores", scores);
  library.impl("row_scores_backward", backward);
}

}  // namespace fathom::cuda
