// What a causal gate thinks of its tokens and which it chooses, on a GPU: checks, memory and registration.
#include "cuda/token_choice.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/_fused_rms_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "cuda/registration.h"
#include "cuda/rows_of.h"
#include "cuda/scorer_product.h"
#include "cuda/sum_of_parts.h"

namespace fathom::cuda {
namespace {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

/// Of `both` [B, T, 2I], without what belongs to one pass alone.
CausalScoreArgs score_args(const at::Tensor& both, const at::Tensor& shift, const at::Tensor& out) {
  const int64_t inner = out.numel(), sequences = both.size(0);
  FATHOM_CHECK(both.is_contiguous() && both.scalar_type() == at::kFloat && causal_scores_fit(inner) &&
                   both.size(2) == 2 * inner && sequences < 65536 && shift.numel() == 2 * inner &&
                   out.scalar_type() != at::kDouble && shift.scalar_type() == out.scalar_type() &&
                   shift.is_contiguous() && out.is_contiguous(),
               "[causal_scores] expected dense float32 rows of a bottleneck of 32 to 1024, got {}", inner);
  return {.both = both.const_data_ptr<float>(),
          .shift = shift.const_data_ptr(),
          .out = out.const_data_ptr(),
          .bias = nullptr,
          .partial = nullptr,
          .sum = nullptr,
          .score = nullptr,
          .sequences = sequences,
          .tokens = both.size(1),
          .inner = inner};
}

at::Tensor empty_chunk_sums(const at::Tensor& both) {
  return at::empty({both.size(0), (both.size(1) + kScoreChunk - 1) / kScoreChunk, both.size(2) / 2},
                   both.options());
}

/// Sums of chunks, made where they are not `given`.
at::Tensor chunk_sums(const Optional& given, const at::Tensor& both, CausalScoreArgs& args) {
  auto sums = given ? *given : empty_chunk_sums(both);
  FATHOM_CHECK(
      sums.is_contiguous() && sums.scalar_type() == at::kFloat &&
          sums.numel() == args.sequences * ((args.tokens + kScoreChunk - 1) / kScoreChunk) * args.inner,
      "[causal_scores] expected sums of {} chunks", kScoreChunk);
  args.partial = sums.mutable_data_ptr<float>();
  if (!given) C10_CUDA_CHECK(launch_chunk_sums(args, stream()));
  return sums;
}

/// The product of norm(x) and the projection by two operations, where the kernel takes neither.
Three plain_product(const at::Tensor& x, const at::Tensor& norm, const at::Tensor& project, double eps) {
  const auto [normed, scale] = at::_fused_rms_norm(x, norm.sizes(), norm, eps);
  const auto rows = normed.flatten(0, 1);
  const bool narrow = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
  const auto both = (narrow ? at::mm(rows, project.t(), at::kFloat) : at::mm(rows, project.t()))
                        .view({x.size(0), x.size(1), project.size(0)});
  auto sums = at::empty({0}, both.options());
  return {both, scale, sums};
}

Three product(const at::Tensor& x_in, const at::Tensor& norm_in, const at::Tensor& project_in, double eps) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = x_in.contiguous(), norm = norm_in.contiguous(), project = project_in.contiguous();
  const ElementType type = element_type_of(x, "scorer_product");
  const int64_t dim = x.size(2), columns = project.size(0);
  FATHOM_CHECK(norm.numel() == dim && project.size(1) == dim && norm.scalar_type() == x.scalar_type() &&
                   project.scalar_type() == x.scalar_type() && norm.device() == x.device() &&
                   project.device() == x.device(),
               "[scorer_product] expected weights of {} columns and the states' type on {}", dim,
               x.device().str());
  const bool fits = at::cuda::getCurrentDeviceProperties()->major == 9 && columns % 2 == 0 &&
                    scorer_product_fits(type, x.size(0), dim, columns / 2) &&
                    are_aligned16({x.const_data_ptr(), norm.const_data_ptr(), project.const_data_ptr()});
  if (!fits || x.numel() == 0) return plain_product(x, norm, project, eps);
  const auto wide = x.options().dtype(at::kFloat);
  auto both = at::empty({x.size(0), x.size(1), columns}, wide),
       scale = at::empty({x.size(0), x.size(1), 1}, wide), sums = empty_chunk_sums(both);
  const ScorerProductArgs args = {.x = x.const_data_ptr(),
                                  .norm = norm.const_data_ptr(),
                                  .project = project.const_data_ptr(),
                                  .both = both.mutable_data_ptr<float>(),
                                  .scale = scale.mutable_data_ptr<float>(),
                                  .partial = sums.mutable_data_ptr<float>(),
                                  .sequences = x.size(0),
                                  .tokens = x.size(1),
                                  .dim = dim,
                                  .inner = columns / 2,
                                  .eps = static_cast<float>(eps)};
  C10_CUDA_CHECK(launch_scorer_product(type, args, stream()));
  return {both, scale, sums};
}

at::Tensor causal_scores(const at::Tensor& both, const Optional& partial, const at::Tensor& shift,
                         const at::Tensor& out, const at::Tensor& bias, at::Tensor& sum) {
  const c10::cuda::CUDAGuard guard(both.device());
  CausalScoreArgs args = score_args(both, shift, out);
  FATHOM_CHECK(bias.scalar_type() == out.scalar_type() && sum.is_contiguous() &&
                   sum.numel() == args.sequences * args.inner,
               "[causal_scores] expected dense sums of {}", args.inner);
  auto score = at::empty({args.sequences, args.tokens}, both.options());
  if (score.numel() == 0) {
    sum.zero_();
    return score;
  }
  const auto sums = chunk_sums(partial, both, args);
  args.bias = bias.const_data_ptr();
  args.sum = sum.mutable_data_ptr<float>();
  args.score = score.mutable_data_ptr<float>();
  C10_CUDA_CHECK(launch_causal_scores(element_type_of(out, "causal_scores"), args, stream()));
  return score;
}

Four causal_scores_backward(const at::Tensor& grad, const at::Tensor& both, const Optional& partial,
                            const at::Tensor& shift, const at::Tensor& out, const at::Tensor& scale,
                            at::ScalarType grad_type) {
  const c10::cuda::CUDAGuard guard(both.device());
  CausalScoreGradArgs args = {};
  args.forward = score_args(both, shift, out);
  const int64_t inner = args.forward.inner;
  FATHOM_CHECK(grad.is_contiguous() && grad.scalar_type() == at::kFloat && scale.is_contiguous() &&
                   scale.scalar_type() == at::kFloat && grad.numel() * 2 * inner == both.numel() &&
                   scale.numel() == grad.numel(),
               "[causal_scores_backward] expected dense float32 gradients and scales of {} tokens",
               both.size(0) * both.size(1));
  if (both.numel() == 0) {
    const auto none = at::zeros({3 * inner + 1}, both.options());
    return {at::empty(both.sizes(), both.options().dtype(grad_type)), none.narrow(0, 0, 2 * inner),
            none.narrow(0, 2 * inner, inner), none.narrow(0, 3 * inner, 1)};
  }
  const auto sums = chunk_sums(partial, both, args.forward);
  auto tail = at::empty_like(sums), own = at::empty({both.size(0), both.size(1), inner}, both.options()),
       parameters = at::empty({sums.size(0) * sums.size(1), 3 * inner + 1}, both.options()),
       grad_both = at::empty(both.sizes(), both.options().dtype(grad_type));
  args.grad = grad.const_data_ptr<float>();
  args.scale = scale.const_data_ptr<float>();
  args.own = own.mutable_data_ptr<float>();
  args.tail = tail.mutable_data_ptr<float>();
  args.grad_both = grad_both.mutable_data_ptr();
  args.parameter_partial = parameters.mutable_data_ptr<float>();
  constexpr const char* kOp = "causal_scores_backward";
  C10_CUDA_CHECK(launch_causal_scores_backward(element_type_of(out, kOp), element_type_of(grad_both, kOp),
                                               args, stream()));
  const auto total = sum_of_parts(parameters, at::kFloat);
  return {grad_both, total.narrow(0, 0, 2 * inner), total.narrow(0, 2 * inner, inner),
          total.narrow(0, 3 * inner, 1)};
}

at::Tensor weight_grad(const at::Tensor& joint, const at::Tensor& norm, const at::Tensor& project,
                       at::Tensor& grad_project) {
  const c10::cuda::CUDAGuard guard(joint.device());
  const ElementType type = element_type_of(project, "scorer_weight_grad");
  FATHOM_CHECK(joint.is_contiguous() && joint.scalar_type() == at::kFloat && project.is_contiguous() &&
                   norm.is_contiguous() && type != ElementType::kDouble &&
                   norm.scalar_type() == project.scalar_type() && grad_project.is_contiguous() &&
                   grad_project.scalar_type() == at::kFloat && joint.sizes() == project.sizes() &&
                   grad_project.sizes() == joint.sizes() && norm.numel() == joint.size(1) &&
                   joint.size(0) % 2 == 0,
               "[scorer_weight_grad] expected a dense float32 gradient like the projection and room for it");
  auto grad_norm = at::empty({norm.numel()}, joint.options());
  const ScorerWeightGradArgs args = {.joint = joint.const_data_ptr<float>(),
                                     .norm = norm.const_data_ptr(),
                                     .project = project.const_data_ptr(),
                                     .grad_norm = grad_norm.mutable_data_ptr<float>(),
                                     .grad_project = grad_project.mutable_data_ptr<float>(),
                                     .dim = joint.size(1),
                                     .inner = joint.size(0) / 2};
  C10_CUDA_CHECK(launch_scorer_weight_grad(type, args, stream()));
  return grad_norm;
}

Four choose_rows(const Optional& score, const Optional& decided, const Optional& present_in,
                 const Optional& counts, const Optional& key, int64_t draws, double explore) {
  const at::Tensor& given = decided ? *decided : *score;
  const c10::cuda::CUDAGuard guard(given.device());
  const int64_t sequences = given.size(0), tokens = given.size(1);
  FATHOM_CHECK(
      given.numel() > 0 && given.numel() < (int64_t{1} << 31) &&
          (!score || (score->is_contiguous() && score->scalar_type() == at::kFloat)) &&
          (!present_in || (present_in->numel() == given.numel() && present_in->scalar_type() == at::kBool &&
                           present_in->device() == given.device())) &&
          (!counts || (counts->numel() == 3 && counts->scalar_type() == at::kDouble)) &&
          (!key || (key->numel() == sequences && key->scalar_type() == at::kLong && key->is_contiguous() &&
                    key->device() == given.device())),
      "[choose_rows] expected dense float32 scores of some tokens, three float64 counts and a key a "
      "sequence");
  const auto options = given.options().dtype(at::kInt);
  auto place = at::empty({sequences * tokens}, options), slot = at::empty_like(place),
       border = at::empty({sequences + 2}, options);
  const auto present = present_in ? present_in->contiguous() : at::Tensor();
  const auto chosen = decided && present_in ? decided->logical_and(*present_in) : given;
  const auto active = decided ? chosen.contiguous() : at::empty_like(given, given.options().dtype(at::kBool));
  const ChooseRowsArgs args = {.score = score ? score->const_data_ptr<float>() : nullptr,
                               .decided = decided ? active.const_data_ptr<bool>() : nullptr,
                               .active = decided ? nullptr : active.mutable_data_ptr<bool>(),
                               .present = present.defined() ? present.const_data_ptr<bool>() : nullptr,
                               .counts = counts ? counts->mutable_data_ptr<double>() : nullptr,
                               .key = key ? key->const_data_ptr<int64_t>() : nullptr,
                               .stream = draws,
                               .explore = static_cast<float>(explore),
                               .place = place.mutable_data_ptr<int32_t>(),
                               .slot = slot.mutable_data_ptr<int32_t>(),
                               .border = border.mutable_data_ptr<int32_t>(),
                               .sequences = sequences,
                               .tokens = tokens};
  C10_CUDA_CHECK(launch_choose_rows(args, stream()));
  return {place, slot, border, active};
}

}  // namespace

void register_token_choice(torch::Library& library) {
  library.impl("scorer_product", product);
  library.impl("causal_scores", causal_scores);
  library.impl("causal_scores_backward", causal_scores_backward);
  library.impl("scorer_weight_grad", weight_grad);
  library.impl("choose_rows", choose_rows);
}

}  // namespace fathom::cuda
