#include "nn/gated_rows.h"

#include <ATen/ATen.h>

#include "nn/side_gradient.h"
#include "tensor/random_keys.h"

namespace fathom {
namespace {

/// [n, ...] of one value a row, to be multiplied with `y`.
at::Tensor spread(const at::Tensor& value, const at::Tensor& y) {
  std::vector<int64_t> shape = value.sizes().vec();
  shape.resize(static_cast<size_t>(y.dim()), 1);
  return value.reshape(shape);
}

}  // namespace

GatedRows::GatedRows(const GateDecision& decision, const AttentionView& view, const ForwardContext& context)
    : decision_(decision), tokens_(computed_tokens(decision, view)), context_(context), whole_(context) {
  if (context.waited != nullptr) *context.waited = true;
  // Whether a product fits would depend on how many tokens a gate let through.
  context_.fp8 = nullptr;
  // What is drawn for a token may not depend on how full the batch is that it came in.
  packed_ = !tokens_.is_all || tokens_.layout.key_N.defined() || tokens_.value_weight_N.defined() ||
            view.cache != nullptr || context.drops();
  if (!packed_) return;
  sample_N_ = at::floor_divide(tokens_.place_N, tokens_.tokens);
  if (context.key_B.defined())
    context_.key_B = token_keys(context.key_B, tokens_.tokens).flatten().index_select(0, tokens_.place_N);
}

at::Tensor GatedRows::take(const at::Tensor& x) const {
  return packed_ ? x.flatten(0, 1).index_select(0, tokens_.place_N) : x;
}

at::Tensor GatedRows::put(const at::Tensor& x, const at::Tensor& y) const {
  return packed_ ? x.flatten(0, 1).index_copy(0, tokens_.place_N, y).view_as(x) : y;
}

at::Tensor GatedRows::dropped(const at::Tensor& y, const BranchDrop& drop) const {
  const auto kept = dropout(y, drop.dropout, drop.stream, context_);
  const auto scale_B = branch_scale(y.options(), drop, whole_);
  if (!scale_B.defined()) return kept;
  return kept * spread(packed_ ? scale_B.index_select(0, sample_N_) : scale_B, kept);
}

at::Tensor GatedRows::added(const at::Tensor& x,
                            const std::function<at::Tensor(const at::Tensor&)>& branch) const {
  auto y = x;
  if (tokens_.place_N.size(0) > 0) {
    const auto rows = take(x);
    auto branched = branch(rows);
    if (decision_.weight_BT.defined())
      branched = branched * spread(take(decision_.weight_BT), branched).to(branched.scalar_type());
    y = put(x, rows + branched);
  }
  return decision_.side_BT.defined() ? attach_gradient(y, decision_.side_BT, decision_.side_gradient_BT) : y;
}

int64_t num_weights(const torch::nn::Module& module) {
  int64_t sum = 0;
  for (const at::Tensor& parameter : module.parameters()) sum += parameter.numel();
  return sum;
}

}  // namespace fathom
