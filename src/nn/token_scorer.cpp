#include "nn/token_scorer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/product_type.h"
#include "kernels/token_scorer.h"

namespace fathom {
namespace {

/// Scores begin above the threshold, so that training starts from a dense model.
constexpr double kInitialBias = 2.0;

/// Mean over the unpadded tokens of each row: [B, T, H] → [B, 1, H].
at::Tensor row_mean(const at::Tensor& x_BTH, const AttentionView& view) {
  if (!view.present_BT.defined()) return x_BTH.mean(1, /*keepdim=*/true);
  const auto present_BT1 = view.present_BT.unsqueeze(2);
  const auto count_B11 = present_BT1.sum(1, /*keepdim=*/true).clamp_min(1).to(x_BTH.scalar_type());
  return x_BTH.masked_fill(present_BT1.logical_not(), 0).sum(1, /*keepdim=*/true) / count_B11;
}

/// Where each token's text begins in its row: [B, T].
at::Tensor segment_start(const at::Tensor& segment_BT) {
  const auto place_T = at::arange(segment_BT.size(1), segment_BT.options());
  const auto changes = segment_BT.slice(1, 1).ne(segment_BT.slice(1, 0, -1));
  const auto begins_BT = at::constant_pad_nd(place_T.slice(0, 1) * changes, {1, 0}, 0);
  return std::get<0>(begins_BT.cummax(1));
}

/// Mean of each token and those before it in its text: [B, T, H] → [B, T, H].
at::Tensor running_mean(const at::Tensor& x_BTH, const AttentionView& view, int64_t layer) {
  auto sum_BTH = x_BTH.cumsum(1);
  const int64_t tokens = x_BTH.size(1);
  const auto place_T = at::arange(tokens, x_BTH.options().dtype(at::kLong));
  if (view.segment_BT.defined()) {
    const auto start_BT = segment_start(view.segment_BT);
    const auto index_BTH = start_BT.unsqueeze(2).expand_as(sum_BTH);
    const auto before_BTH = at::constant_pad_nd(sum_BTH, {0, 0, 1, 0}, 0).gather(1, index_BTH);
    const auto count_BT1 = (place_T.unsqueeze(0) - start_BT + 1).unsqueeze(2);
    return (sum_BTH - before_BTH) / count_BT1.to(x_BTH.scalar_type());
  }
  int64_t before = 0;
  if (view.cache != nullptr) {
    before = view.cache->length();
    at::Tensor& kept_B1H = view.cache->gate_sum(layer);
    if (kept_B1H.defined()) sum_BTH = sum_BTH + kept_B1H;
    kept_B1H = sum_BTH.slice(1, tokens - 1).clone();
  }
  return sum_BTH / (place_T + (before + 1)).unsqueeze(1).to(x_BTH.scalar_type());
}

}  // namespace

at::Tensor present_tokens(const at::Tensor& x_BTD, const AttentionView& view) {
  if (view.present_BT.defined()) return view.present_BT;
  return at::ones({x_BTD.size(0), x_BTD.size(1)},
                  at::TensorOptions().dtype(at::kBool).device(x_BTD.device()));
}

TokenScorerImpl::TokenScorerImpl(const TokenScorerOptions& options) : options_(options) {
  norm_ = register_module("norm", RMSNorm(options.dim, options.norm_eps));
  project_ = register_module("project", Linear(LinearOptions{.in = options.dim, .out = 2 * options.inner}));
  out_H_ = register_parameter("out", at::empty({options.inner}));
  bias_ = register_parameter("bias", at::empty({1}));
}

at::Tensor TokenScorerImpl::forward(const at::Tensor& x_BTD, const AttentionView& view,
                                    const ForwardContext& context) {
  const auto both_BTH = project_(kernels::wide(norm_(x_BTD)), context);
  const auto own_BTH = both_BTH.slice(2, 0, options_.inner), other_BTH = both_BTH.slice(2, options_.inner);
  const auto mean =
      options_.causal ? running_mean(other_BTH, view, options_.layer) : row_mean(other_BTH, view);
  const auto hidden_BTH = at::gelu(own_BTH + mean);
  return at::matmul(hidden_BTH, out_H_.to(hidden_BTH.scalar_type())) + bias_.to(hidden_BTH.scalar_type());
}

at::Tensor TokenScorerImpl::counted(const at::Tensor& x_BTD, const AttentionView& view,
                                    const ForwardContext& context) const {
  const kernels::LinearTypes types = {.copies = context.copies, .rooms = context.rooms};
  if (!options_.causal) return kernels::row_scorer(x_BTD, weights(), eps(), view.present_BT, types);
  const auto [score_BT, sum_B1H] = kernels::causal_scorer(x_BTD, weights(), eps(), types);
  if (view.cache != nullptr) view.cache->gate_sum(options_.layer) = sum_B1H;
  return score_BT;
}

kernels::TokenScorerWeights TokenScorerImpl::weights() const {
  return {.norm = norm_->weight(),
          .project = project_->weight(),
          .behind = {.shift = project_->bias(), .out = out_H_, .bias = bias_}};
}

void TokenScorerImpl::initialise(ParameterInit& init) const {
  init.normal("out", 1.0 / std::sqrt(static_cast<double>(options_.inner)));
  init.constant("bias", kInitialBias);
}

PooledScorerImpl::PooledScorerImpl(const PooledScorerOptions& options) : options_(options) {
  const int64_t inner = std::max<int64_t>(1, options.places / 8);
  norm_ = register_module("norm", RMSNorm(options.dim, options.norm_eps));
  down_ = register_module("down", Linear(LinearOptions{.in = options.dim, .out = inner}));
  up_ = register_module("up", Linear(LinearOptions{.in = inner, .out = options.places}));
}

at::Tensor PooledScorerImpl::forward(const at::Tensor& x_BTD, const AttentionView& view,
                                     const ForwardContext& context) {
  const auto mean_BD = row_mean(kernels::wide(norm_(x_BTD)), view).squeeze(1);
  const auto score_BS = up_(at::gelu(down_(mean_BD, context)), context) + kInitialBias;
  const auto score_BRC = score_BS.view({score_BS.size(0), options_.map_rows, -1});
  const int64_t rows = view.map_rows, columns = x_BTD.size(1) / rows;
  if (rows == options_.map_rows && columns == score_BRC.size(2)) return score_BS;
  if (options_.is_picture)
    return at::upsample_bilinear2d(score_BRC.unsqueeze(1), {rows, columns}, /*align_corners=*/false)
        .flatten(1);
  FATHOM_CHECK(rows == options_.map_rows && columns <= score_BRC.size(2),
               "[pooled] scores for {} × {} tokens, got {} × {}", options_.map_rows, score_BRC.size(2), rows,
               columns);
  return score_BRC.slice(2, 0, columns).flatten(1);
}

}  // namespace fathom
