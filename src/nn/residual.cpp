#include "nn/residual.h"

#include <ATen/ATen.h>

#include "kernels/call.h"
#include "kernels/keyed_dropout.h"
#include "kernels/scaled_sum.h"

namespace fathom {
namespace {

/// The branch of dropout uses stream 2s, that of stochastic depth 2s + 1.
constexpr int64_t kDropout = 0, kDropPath = 1;

}  // namespace

at::Tensor dropout(const at::Tensor& x, double probability, int64_t stream, const ForwardContext& context) {
  if (probability == 0 || !context.drops()) return x;
  return kernels::keyed_dropout(x, context.key_B, 2 * stream + kDropout, probability);
}

at::Tensor add_branch(const at::Tensor& x, const at::Tensor& branch, const BranchDrop& drop,
                      const ForwardContext& context) {
  return with_branch(x, branch, drop, context).sum();
}

at::Tensor Residual::sum() const {
  return branch.defined() ? kernels::scaled_sum(x, branch, kernels::optional(scale_B)) : x;
}

std::optional<kernels::Branch> Residual::open() const {
  const kernels::Branch added = {branch, scale_B};
  return branch.defined() && added.fits(x) ? std::make_optional(added) : std::nullopt;
}

Residual with_branch(const at::Tensor& x, const at::Tensor& branch, const BranchDrop& drop,
                     const ForwardContext& context) {
  return {x, dropout(branch, drop.dropout, drop.stream, context), branch_scale(x.options(), drop, context)};
}

kernels::NormedSum normed_sum(const Residual& stream, const RMSNorm& norm,
                              const kernels::Products& products) {
  const auto branch = stream.open();
  if (branch && !branch->scale_B.defined())
    return kernels::residual_rms_norm(stream.x, branch->value, norm->weight(), norm->eps(), products);
  const auto sum = stream.sum();
  return {sum, norm->forward(sum)};
}

kernels::NormedSum normed_sum(const Residual& stream, const LayerNorm& norm) {
  if (const auto branch = stream.open())
    return kernels::residual_layer_norm(stream.x, *branch, norm->weight(), norm->bias(), norm->eps());
  const auto sum = stream.sum();
  return {sum, norm->forward(sum)};
}

at::Tensor branch_scale(const at::TensorOptions& options, const BranchDrop& drop,
                        const ForwardContext& context) {
  if (drop.drop_path == 0 || !context.drops()) return {};
  return kernels::keyed_dropout(at::ones({context.key_B.size(0)}, options.requires_grad(false)),
                                context.key_B, 2 * drop.stream + kDropPath, drop.drop_path);
}

double drop_path_at(int64_t block, int64_t count, double last) {
  return count > 1 ? last * static_cast<double>(block) / static_cast<double>(count - 1) : last;
}

}  // namespace fathom
