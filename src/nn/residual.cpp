#include "nn/residual.h"

#include <ATen/ATen.h>

#include "kernels/keyed_dropout.h"
#include "kernels/residual_layer_norm.h"

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
  const auto kept = dropout(branch, drop.dropout, drop.stream, context);
  const auto scale_B = branch_scale(x.options(), drop, context);
  if (!scale_B.defined()) return at::add(x, kept);
  std::vector<int64_t> per_sample(static_cast<size_t>(x.dim()), 1);
  per_sample[0] = x.size(0);
  return at::addcmul(x, kept, scale_B.view(per_sample));
}

at::Tensor Residual::sum() const {
  return branch.defined() ? at::add(x, branch) : x;
}

Residual with_branch(const at::Tensor& x, const at::Tensor& branch, const BranchDrop& drop,
                     const ForwardContext& context) {
  const bool drops = context.drops() && (drop.dropout > 0 || drop.drop_path > 0);
  return drops ? Residual{add_branch(x, branch, drop, context)} : Residual{x, branch};
}

bool Residual::is_open() const {
  return branch.defined() && branch.scalar_type() == x.scalar_type() && branch.sizes() == x.sizes();
}

kernels::NormedSum normed_sum(const Residual& stream, const RMSNorm& norm) {
  if (stream.is_open())
    return kernels::residual_rms_norm(stream.x, stream.branch, norm->weight(), norm->eps());
  const auto sum = stream.sum();
  return {sum, norm->forward(sum)};
}

kernels::NormedSum normed_sum(const Residual& stream, const LayerNorm& norm) {
  if (stream.is_open())
    return kernels::residual_layer_norm(stream.x, stream.branch, norm->weight(), norm->bias(), norm->eps());
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
