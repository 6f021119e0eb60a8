// fathom::residual_layer_norm and merged_layer_norm on a GPU: checks and registration. What the kernels do
// not take goes through the operations that they stand for.
#include "cuda/layer_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "cuda/norm_tensors.h"
#include "cuda/registration.h"
#include "cuda/sum_of_parts.h"
#include "kernels/merged_layer_norm_parts.h"
#include "kernels/residual_layer_norm_parts.h"

namespace fathom::cuda {
namespace {

namespace residual_parts = kernels::residual_layer_norm_parts;
namespace merged_parts = kernels::merged_layer_norm_parts;
using kernels::residual_layer_norm_parts::Four;
using MaybeTensor = std::optional<at::Tensor>;

/// Weight and bias as the kernels read them: both in the rows' type as they are, else in float32.
struct NormParameters {
  at::Tensor weight, bias;
  bool narrow;

  NormParameters(const at::Tensor& w, const at::Tensor& b, at::ScalarType type)
      : narrow(type != at::kFloat && w.scalar_type() == type && b.scalar_type() == type) {
    weight = aligned16(w.to(narrow ? type : at::kFloat));
    bias = aligned16(b.to(narrow ? type : at::kFloat));
  }
};

/// Dense, or undefined.
at::Tensor dense(const MaybeTensor& x) {
  return x ? x->contiguous() : at::Tensor();
}

const void* data_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr() : nullptr;
}

/// For the gradient of a branch, whose kernels' references leave it empty where it is that of the sum.
at::Tensor branch_room(const at::Tensor& grad_x, const at::Tensor& scale_B) {
  return scale_B.defined() ? at::empty_like(grad_x) : at::empty({0}, grad_x.options());
}

void check_parameters(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t dim) {
  FATHOM_CHECK(weight.numel() == dim && bias.numel() == dim && weight.device() == x.device() &&
                   bias.device() == x.device(),
               "[residual_layer_norm] expected a weight and a bias of {} elements on {}", dim,
               x.device().str());
}

void check_branch(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& scale_B) {
  FATHOM_CHECK(!branch.defined() || (branch.sizes() == x.sizes() && branch.device() == x.device() &&
                                     branch.scalar_type() == x.scalar_type()),
               "[residual_layer_norm] expected a branch like the input on {}", x.device().str());
  FATHOM_CHECK(
      !scale_B.defined() || (x.dim() > 1 && scale_B.dim() == 1 && scale_B.size(0) == x.size(0) &&
                             scale_B.device() == x.device() && scale_B.scalar_type() == x.scalar_type()),
      "[residual_layer_norm] expected a factor of each sample, like the input");
}

/// `rows` are those of all samples together.
BranchScale scale_of(const at::Tensor& scale_B, int64_t rows) {
  if (!scale_B.defined()) return {};
  return {.values = scale_B.const_data_ptr(), .rows = rows / scale_B.size(0)};
}

/// Runs the kernel: what it writes has been made, and says how many rows there are.
void run_forward(LayerNormArgs args, const Four& written, const NormParameters& parameters) {
  const auto& [sum, y, mean, scale] = written;
  args.weight = parameters.weight.const_data_ptr();
  args.bias = parameters.bias.const_data_ptr();
  args.sum = sum.numel() > 0 ? sum.mutable_data_ptr() : nullptr;
  args.y = y.mutable_data_ptr();
  args.mean = mean.mutable_data_ptr<float>();
  args.scale = scale.mutable_data_ptr<float>();
  args.rows = mean.numel();
  args.dim = y.size(-1);
  args.narrow = parameters.narrow;
  C10_CUDA_CHECK(
      launch_layer_norm(element_type_of(y, "residual_layer_norm"), args, c10::cuda::getCurrentCUDAStream()));
}

/// The same of the backward pass, of rows [.., dim] that are normed. Gradients of weight and bias.
std::pair<at::Tensor, at::Tensor> run_backward(LayerNormGradArgs args, const at::Tensor& sum,
                                               const at::Tensor& weight, const at::Tensor& bias) {
  const ElementType type = element_type_of(sum, "residual_layer_norm");
  const NormParameters parameters(weight, bias, sum.scalar_type());
  args.dim = weight.numel();
  args.rows = sum.numel() / args.dim;
  args.blocks = norm_row_blocks(type, args.rows, args.dim);
  auto partial = at::empty({args.blocks, 2, args.dim}, sum.options().dtype(at::kFloat));
  args.sum = sum.const_data_ptr();
  args.weight = parameters.weight.const_data_ptr();
  args.partial = partial.mutable_data_ptr<float>();
  args.narrow = parameters.narrow;
  C10_CUDA_CHECK(launch_layer_norm_grad(type, args, c10::cuda::getCurrentCUDAStream()));
  const auto sums = sum_of_parts(partial, weight.scalar_type());
  return {sums.select(0, 0), sums.select(0, 1).to(bias.scalar_type())};
}

Four residual_layer_norm(const at::Tensor& x_in, const at::Tensor& branch_in, const MaybeTensor& scale_in,
                         const at::Tensor& weight, const at::Tensor& bias, double eps) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = x_in.contiguous(), branch = branch_in.contiguous(), scale_B = dense(scale_in);
  FATHOM_CHECK(x.dim() > 0, "[residual_layer_norm] expected rows, got a number");
  check_parameters(x, weight, bias, x.size(-1));
  check_branch(x, branch, scale_B);
  if (!norm_rows_fit(x, {x, branch}, "residual_layer_norm"))
    return residual_parts::forward(x, branch, scale_in, weight, bias, eps);
  const auto mean = empty_row_figures(x);
  Four written = {at::empty_like(x), at::empty_like(x), mean, at::empty_like(mean)};
  if (x.numel() == 0) return written;
  run_forward({.x = x.const_data_ptr(),
               .branch = branch.const_data_ptr(),
               .eps = static_cast<float>(eps),
               .branch_scale = scale_of(scale_B, mean.numel())},
              written, {weight, bias, x.scalar_type()});
  return written;
}

Four residual_layer_norm_backward(const MaybeTensor& grad_sum_in, const at::Tensor& grad_in,
                                  const at::Tensor& sum_in, const MaybeTensor& scale_in,
                                  const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean,
                                  const at::Tensor& scale) {
  const c10::cuda::CUDAGuard guard(sum_in.device());
  const auto grad = grad_in.contiguous(), sum = sum_in.contiguous(), beside = dense(grad_sum_in),
             scale_B = dense(scale_in);
  FATHOM_CHECK(sum.dim() > 0 && mean.numel() == scale.numel() &&
                   scale.numel() * sum.size(-1) == sum.numel() && scale.device() == sum.device() &&
                   mean.device() == sum.device(),
               "[residual_layer_norm] expected figures of each row of the sum");
  check_parameters(sum, weight, bias, sum.size(-1));
  check_branch(sum, grad, scale_B);
  check_branch(sum, beside, {});
  auto grad_x = at::empty_like(sum), grad_branch = branch_room(grad_x, scale_B);
  if (sum.numel() == 0) return {grad_x, grad_branch, at::zeros_like(weight), at::zeros_like(bias)};
  if (!norm_rows_fit(sum, {grad, sum, beside}, "residual_layer_norm"))
    return residual_parts::backward(grad_sum_in, grad, sum, scale_in, weight, bias, mean, scale);
  auto [grad_weight, grad_bias] =
      run_backward({.grad_sum = data_of(beside),
                    .grad = grad.const_data_ptr(),
                    .mean = mean.const_data_ptr<float>(),
                    .scale = scale.const_data_ptr<float>(),
                    .grad_x = grad_x.mutable_data_ptr(),
                    .grad_branch = scale_in ? grad_branch.mutable_data_ptr() : nullptr,
                    .branch_scale = scale_of(scale_B, scale.numel())},
                   sum, weight, bias);
  return {grad_x, grad_branch, grad_weight, grad_bias};
}

/// Whether rows of four neighbours of this map, or of its merged form, are read and written where they lie.
bool takes_map(const at::Tensor& map, int64_t dim) {
  const ElementType type = element_type_of(map, "merged_layer_norm");
  return norm_row_fits(type, 4 * dim) && norm_vectors(type, dim) > 0 && map.numel() > 0 &&
         map.numel() / (4 * dim) <= std::numeric_limits<int>::max() && are_aligned16({map.const_data_ptr()});
}

RowPlaces places_of(const at::Tensor& x, int64_t half_width, int64_t dim) {
  return {.quarter = static_cast<int>(dim * x.element_size() / 16),
          .half_width = static_cast<int>(half_width)};
}

Four merged_layer_norm(const at::Tensor& x_in, const MaybeTensor& branch_in, const MaybeTensor& scale_in,
                       const at::Tensor& weight, const at::Tensor& bias, double eps, bool learns) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = x_in.contiguous(), branch = dense(branch_in), scale_B = dense(scale_in);
  FATHOM_CHECK(x.dim() == 4 && x.size(1) % 2 == 0 && x.size(2) % 2 == 0,
               "[merged_layer_norm] expected a map of even sides");
  check_parameters(x, weight, bias, 4 * x.size(3));
  check_branch(x, branch, scale_B);
  const int64_t dim = x.size(3), rows = x.size(1) / 2, columns = x.size(2) / 2;
  if (!takes_map(x, dim) || !are_aligned16({data_of(branch)}))
    return merged_parts::forward(x, branch_in, scale_in, weight, bias, eps, learns);
  const auto y = at::empty({x.size(0), rows, columns, 4 * dim}, x.options()), mean = empty_row_figures(y);
  Four written = {learns ? at::empty_like(y) : at::empty({0}, x.options()), y, mean, at::empty_like(mean)};
  run_forward({.x = x.const_data_ptr(),
               .branch = data_of(branch),
               .eps = static_cast<float>(eps),
               .branch_scale = scale_of(scale_B, mean.numel()),
               .places = places_of(x, columns, dim)},
              written, {weight, bias, x.scalar_type()});
  return written;
}

Four merged_layer_norm_backward(const at::Tensor& grad_in, const at::Tensor& merged_in,
                                const MaybeTensor& scale_in, const at::Tensor& weight, const at::Tensor& bias,
                                const at::Tensor& mean, const at::Tensor& scale) {
  const c10::cuda::CUDAGuard guard(merged_in.device());
  const auto grad = grad_in.contiguous(), merged = merged_in.contiguous(), scale_B = dense(scale_in);
  FATHOM_CHECK(merged.dim() == 4 && merged.size(3) % 4 == 0 && mean.numel() == scale.numel() &&
                   scale.numel() * merged.size(3) == merged.numel() && scale.device() == merged.device() &&
                   mean.device() == merged.device(),
               "[merged_layer_norm] expected figures of each row of the merged sum");
  check_parameters(merged, weight, bias, merged.size(3));
  check_branch(merged, grad, scale_B);
  const int64_t dim = merged.size(3) / 4;
  if (!takes_map(merged, dim) || !are_aligned16({grad.const_data_ptr()}))
    return merged_parts::backward(grad, merged, scale_in, weight, bias, mean, scale);
  auto grad_x = at::empty({merged.size(0), 2 * merged.size(1), 2 * merged.size(2), dim}, merged.options()),
       grad_branch = branch_room(grad_x, scale_B);
  auto [grad_weight, grad_bias] =
      run_backward({.grad = grad.const_data_ptr(),
                    .mean = mean.const_data_ptr<float>(),
                    .scale = scale.const_data_ptr<float>(),
                    .grad_x = grad_x.mutable_data_ptr(),
                    .grad_branch = scale_in ? grad_branch.mutable_data_ptr() : nullptr,
                    .branch_scale = scale_of(scale_B, scale.numel()),
                    .places = places_of(merged, merged.size(2), dim)},
                   merged, weight, bias);
  return {grad_x, grad_branch, grad_weight, grad_bias};
}

}  // namespace

void register_residual_layer_norm(torch::Library& library) {
  library.impl("merged_layer_norm", merged_layer_norm);
  library.impl("merged_layer_norm_backward", merged_layer_norm_backward);
  library.impl("residual_layer_norm", residual_layer_norm);
  library.impl("residual_layer_norm_backward", residual_layer_norm_backward);
}

}  // namespace fathom::cuda
