#include "nn/token_gate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "kernels/row_scores.h"
#include "tensor/random_keys.h"

namespace fathom {
namespace {

/// Tells a gate's draws from those of dropout, whose streams are small.
constexpr int64_t kGateStream = int64_t{1} << 44;

/// Entropy of a decision with this probability, in bits.
at::Tensor binary_entropy(const at::Tensor& p) {
  return -(at::xlogy(p, p) + at::xlogy(1 - p, 1 - p)) / std::log(2.0);
}

/// Each token's share of a mean over the samples of a step and, in a sample, over its tokens: [B, T].
at::Tensor shares(const at::Tensor& present_BT, const ForwardContext& context, at::ScalarType type) {
  const auto count_B1 = present_BT.sum(1, /*keepdim=*/true).clamp_min(1).to(type);
  return present_BT.to(type) * (context.sample_share / count_B1);
}

/// A value of 1 or 0 with the gradient of `score`, times `scale`.
at::Tensor straight_through(const at::Tensor& mask, const at::Tensor& score, const at::Tensor& scale) {
  return mask.to(score.scalar_type()) + (score - score.detach()) * scale;
}

/// The number of each token's text in its row: int64 [B, T], rising from 0.
at::Tensor texts_of(const at::Tensor& present_BT, const AttentionView& view) {
  if (!view.segment_BT.defined()) return at::zeros_like(present_BT, present_BT.options().dtype(at::kLong));
  const auto changes = view.segment_BT.slice(1, 1).ne(view.segment_BT.slice(1, 0, -1));
  return at::constant_pad_nd(changes.to(at::kLong), {1, 0}, 0).cumsum(1);
}

/// True at the `density` (rounded up) of each text's unpadded tokens that have its highest scores.
at::Tensor highest(const at::Tensor& score_BT, const at::Tensor& text_BT, const at::Tensor& present_BT,
                   double density) {
  const auto counts_of = [&](const at::Tensor& token_BT) {
    return at::zeros_like(text_BT).scatter_add(1, text_BT, token_BT.to(at::kLong));
  };
  const auto tokens_BS = counts_of(at::ones_like(text_BT)), start_BS = tokens_BS.cumsum(1) - tokens_BS;
  const auto end_BS = start_BS + (counts_of(present_BT).to(at::kDouble) * density).ceil().to(at::kLong);
  // By text and, in a text, by score: each text stands where it stands in the row.
  const auto by_score_BT = score_BT.masked_fill(present_BT.logical_not(), -INFINITY)
                               .argsort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
  const auto by_text_BT =
      text_BT.gather(1, by_score_BT).argsort(/*stable=*/true, /*dim=*/1, /*descending=*/false);
  const auto kept_BT = at::arange(text_BT.size(1), text_BT.options()).lt(end_BS.gather(1, text_BT));
  return at::zeros_like(present_BT).scatter(1, by_score_BT.gather(1, by_text_BT), kept_BT);
}

}  // namespace

TokenGateImpl::TokenGateImpl(const TokenGateOptions& options) : options_(options) {
  const GateConfig& config = options.config;
  if (config.kind == GateKind::kPooled)
    pooled_ = register_module("pooled", PooledScorer(PooledScorerOptions{.dim = options.dim,
                                                                         .places = options.places,
                                                                         .map_rows = options.map_rows,
                                                                         .is_picture = options.is_picture,
                                                                         .norm_eps = options.norm_eps}));
  else if (config.learns() || config.kind == GateKind::kTopK)
    scorer_ = register_module("scorer", TokenScorer(TokenScorerOptions{.dim = options.dim,
                                                                       .inner = config.inner_of(options.dim),
                                                                       .norm_eps = options.norm_eps,
                                                                       .causal = config.is_causal(),
                                                                       .layer = options.layer}));
  if (config.kind == GateKind::kTopK)
    router_ = register_module("router", Linear(LinearOptions{.in = options.dim, .out = 1}));
}

GateDecision TokenGateImpl::forward(const at::Tensor& x_BTD, const AttentionView& view,
                                    const ForwardContext& context) {
  const auto present_BT = present_tokens(x_BTD, view);
  GateDecision decision;
  at::Tensor score_BT;
  if (options_.config.learns()) {
    // A gradient that went on into the layers below would grow from gate to gate.
    const auto logit_BT =
        pooled_ ? pooled_(x_BTD.detach(), view, context) : scorer_(x_BTD.detach(), view, context);
    score_BT = at::sigmoid(logit_BT);
    decision = learned(score_BT, present_BT, context);
  } else if (options_.config.kind == GateKind::kTopK) {
    decision = top_k(x_BTD, view, present_BT, context);
  } else {
    decision.active_BT = chosen(drawn(x_BTD, view, context), present_BT, context);
    decision.computed_BT = decision.active_BT;
  }
  if (context.gate_trace != nullptr) context.gate_trace->active_BT[options_.layer] = decision.active_BT;
  // A sample of weight 0 stands for one that is missing.
  if (!context.training || context.sample_share > 0) count(decision, score_BT, present_BT);
  return decision;
}

CountedDecision TokenGateImpl::counted(const at::Tensor& x_BTD, const AttentionView& view,
                                       const ForwardContext& context) {
  if (!options_.config.learns()) {
    const auto active_BT = forward(x_BTD, view, context).active_BT;
    kernels::CountedRows rows = kernels::chosen_rows({.active_BT = active_BT}).first;
    rows.expected = expected_rows(active_BT.numel(), 0);
    return {std::move(rows), {}};
  }
  const auto score_BT = counted_scores(x_BTD, view, context);
  kernels::RowChoice choice{.score_BT = score_BT.detach(), .present_BT = view.present_BT};
  if (context.forced_gates != nullptr)
    choice.active_BT = context.forced_gates->active_BT.at(options_.layer);
  else if (dense_)
    choice.active_BT = present_tokens(x_BTD, view);
  const bool learns = context.training && !dense_;
  if (learns) {
    choice.key_B = context.key_B;
    choice.stream = kGateStream + options_.layer;
    choice.explore = context.explore;
  }
  const bool counts = !context.training || context.sample_share > 0;
  auto [rows, active_BT] = kernels::chosen_rows(choice, counts ? &counts_on(x_BTD.device()) : nullptr);
  if (context.gate_trace != nullptr) context.gate_trace->active_BT[options_.layer] = active_BT;
  rows.expected = expected_rows(score_BT.numel(), choice.explore);
  CountedDecision decision{.rows = std::move(rows)};
  if (!learns) return decision;
  decision.score = {.score_BT = score_BT,
                    .explore = choice.explore > 0 ? choice.explore : 1,
                    .multiplier = multiplier_.defined() ? context.scaled(multiplier_) : multiplier_,
                    .share = context.sample_share / static_cast<double>(x_BTD.size(1)),
                    .values = context.score_values};
  if (view.present_BT.defined())
    decision.score.share_B = at::reciprocal(view.present_BT.sum(1).clamp_min(1).to(score_BT.scalar_type()))
                                 .mul_(context.sample_share);
  return decision;
}

bool TokenGateImpl::has_kernels(int64_t rows) const {
  constexpr int64_t kMostCausalInner = 1024,
                    kMostRows = 65535;  // of a warp's columns; of a grid's second side
  const GateConfig& config = options_.config;
  if (config.kind == GateKind::kTopK) return false;  // whose scores are factors too
  if (!scorer_) return true;
  const int64_t inner = config.inner_of(options_.dim);
  const bool fits = config.is_causal() ? inner % 32 == 0 && inner <= kMostCausalInner
                                       : inner <= kernels::kMostRowScoreInner;
  return fits && rows <= kMostRows;
}

/// Before the sigmoid: float32 or wider, [B, T], dense. Nothing flows on into x.
at::Tensor TokenGateImpl::counted_scores(const at::Tensor& x_BTD, const AttentionView& view,
                                         const ForwardContext& context) {
  if (scorer_) return scorer_->counted(x_BTD, view, context);
  return pooled_(x_BTD.detach(), view, context).contiguous();
}

/// Of so many tokens, when the gate is on its target.
int64_t TokenGateImpl::expected_rows(int64_t tokens, double explore) const {
  const bool whole = dense_ || options_.config.kind == GateKind::kAlternate;
  const double share = whole ? 1 : options_.config.density_of(options_.index);
  return static_cast<int64_t>(std::ceil(static_cast<double>(tokens) * (share + (1 - share) * explore)));
}

/// What becomes of a gate's own choice.
at::Tensor TokenGateImpl::chosen(const at::Tensor& own_BT, const at::Tensor& present_BT,
                                 const ForwardContext& context) const {
  if (context.forced_gates != nullptr) return context.forced_gates->active_BT.at(options_.layer);
  return dense_ ? present_BT : own_BT & present_BT;
}

GateDecision TokenGateImpl::learned(const at::Tensor& score_BT, const at::Tensor& present_BT,
                                    const ForwardContext& context) const {
  GateDecision decision{.active_BT = chosen(score_BT.gt(0.5), present_BT, context)};
  decision.computed_BT = decision.active_BT;
  if (!context.training || dense_) return decision;
  auto scale_BT = at::ones_like(score_BT);
  if (!dense_ && context.explore > 0 && context.key_B.defined()) {
    const auto draw_BT = keyed_uniform(context.key_B, {score_BT.size(1)}, kGateStream + options_.layer);
    const auto explored_BT = draw_BT.lt(context.explore) & decision.active_BT.logical_not() & present_BT;
    decision.computed_BT = decision.active_BT | explored_BT;
    // One of them stands for all that were not drawn.
    scale_BT = scale_BT.masked_fill(explored_BT, 1.0 / context.explore);
  }
  decision.weight_BT = straight_through(decision.active_BT, score_BT, scale_BT);
  if (context.score_values)
    decision.value_weight_BT = 1 + (score_BT - score_BT.detach()) * decision.active_BT;
  if (multiplier_.defined() && !dense_) {
    const at::NoGradGuard no_grad;
    decision.side_BT = score_BT;
    decision.side_gradient_BT = context.scaled(shares(present_BT, context, score_BT.scalar_type()) *
                                               multiplier_.to(score_BT.scalar_type()));
  }
  return decision;
}

GateDecision TokenGateImpl::top_k(const at::Tensor& x_BTD, const AttentionView& view,
                                  const at::Tensor& present_BT, const ForwardContext& context) {
  const auto routed_BT =
      router_(x_BTD.to(at::promote_types(x_BTD.scalar_type(), at::kFloat)), context).squeeze(2);
  // The predictor learns of the router's choice and changes nothing of what it looks at.
  const auto foretold_BT = scorer_(x_BTD.detach(), view, context);
  GateDecision decision{.weight_BT = at::sigmoid(routed_BT)};
  if (!context.training) {
    decision.active_BT = chosen(foretold_BT.gt(0), present_BT, context);
    decision.computed_BT = decision.active_BT;
    return decision;
  }
  const at::NoGradGuard no_grad;
  const auto highest_BT =
      highest(routed_BT, texts_of(present_BT, view), present_BT, options_.config.density_of(options_.index));
  decision.active_BT = chosen(highest_BT, present_BT, context);
  decision.computed_BT = decision.active_BT;
  decision.side_BT = foretold_BT;
  decision.side_gradient_BT =
      context.scaled((at::sigmoid(foretold_BT) - highest_BT.to(foretold_BT.scalar_type())) *
                     shares(present_BT, context, foretold_BT.scalar_type()));
  return decision;
}

/// Random tokens, or whole layers spread evenly.
at::Tensor TokenGateImpl::drawn(const at::Tensor& x_BTD, const AttentionView& view,
                                const ForwardContext& context) const {
  const double density = options_.config.density_of(options_.index);
  const int64_t batch = x_BTD.size(0), tokens = x_BTD.size(1);
  const auto options = x_BTD.options().dtype(at::kLong).requires_grad(false);
  if (options_.config.kind == GateKind::kAlternate) {
    const auto layer = static_cast<double>(options_.index);
    const bool computes = std::floor((layer + 1) * density + 1e-9) > std::floor(layer * density + 1e-9);
    return at::full({batch, tokens}, computes, options.dtype(at::kBool));
  }
  const int64_t before = view.cache != nullptr ? view.cache->length() : 0;
  const bool keyed = context.training && context.key_B.defined();
  const auto key_B = keyed ? context.key_B : at::zeros({1}, options);
  return keyed_uniform(key_B, {before + tokens}, kGateStream + options_.layer)
      .slice(1, before)
      .lt(density)
      .expand({batch, tokens});
}

at::Tensor TokenGateImpl::given(const at::Tensor& x_BTD, const AttentionView& view,
                                const ForwardContext& context) const {
  if (context.forced_gates != nullptr) return context.forced_gates->active_BT.at(options_.layer);
  return scorer_ ? at::Tensor() : drawn(x_BTD, view, context);
}

void TokenGateImpl::reset_counts() {
  if (counts_.defined()) counts_.zero_();
}

at::Tensor& TokenGateImpl::counts_on(at::Device device) {
  if (!counts_.defined() || counts_.device() != device)
    counts_ = at::zeros({GateCounts::kSize}, at::TensorOptions().dtype(at::kDouble).device(device));
  return counts_;
}

void TokenGateImpl::count(const GateDecision& decision, const at::Tensor& score_BT,
                          const at::Tensor& present_BT) {
  const at::NoGradGuard no_grad;
  at::Tensor& counts = counts_on(present_BT.device());
  const auto entropy = score_BT.defined() ? (binary_entropy(score_BT.detach()) * present_BT).sum(at::kDouble)
                                          : at::zeros({}, counts.options());
  counts += at::stack({decision.active_BT.sum().to(at::kDouble), present_BT.sum().to(at::kDouble), entropy});
}

namespace {

/// "text.blocks.3.gate" → "text.3".
std::string gate_name(const std::string& path) {
  std::string name;
  for (size_t start = 0; start < path.size();) {
    const size_t end = std::min(path.find('.', start), path.size());
    std::string part = path.substr(start, end - start);
    start = end + 1;
    if (part == "blocks" || part == "stages" || part == "gate") continue;
    if (part.ends_with("_gate")) part.resize(part.size() - std::string_view("_gate").size());
    name += (name.empty() ? "" : ".") + part;
  }
  return name;
}

}  // namespace

std::vector<NamedGate> gates_of(const torch::nn::Module& model) {
  std::vector<NamedGate> gates;
  for (const auto& item : model.named_modules(/*name_prefix=*/"", /*include_self=*/false))
    if (auto gate = std::dynamic_pointer_cast<TokenGateImpl>(item.value()))
      gates.push_back({gate_name(item.key()), TokenGate(std::move(gate))});
  return gates;
}

std::optional<double> activated_share(const torch::nn::Module& model) {
  double active = 0, all = 0;
  for (const auto& [name, gate] : gates_of(model)) {
    if (!gate->counts().defined()) continue;
    const auto weights = static_cast<double>(gate->options().gated_weights);
    active += weights * gate->counts()[GateCounts::kActive].item<double>();
    all += weights * gate->counts()[GateCounts::kTokens].item<double>();
  }
  return all > 0 ? std::make_optional(active / all) : std::nullopt;
}

double agreement(const GateTrace& one, const GateTrace& other) {
  double alike = 0, all = 0;
  for (const auto& [layer, active_BT] : one.active_BT) {
    alike += active_BT.eq(other.active_BT.at(layer)).sum().item<double>();
    all += static_cast<double>(active_BT.numel());
  }
  return all > 0 ? alike / all : 1;
}

ComputedTokens computed_tokens(const GateDecision& decision, const AttentionView& view) {
  const auto& computed_BT = decision.computed_BT;
  ComputedTokens found{.place_N = at::nonzero(computed_BT.flatten()).squeeze(1),
                       .tokens = computed_BT.size(1)};
  found.is_all = found.place_N.size(0) == computed_BT.numel();
  at::Tensor count_S;
  if (view.segment_BT.defined()) {
    const auto segment_N = view.segment_BT.flatten().index_select(0, found.place_N);
    const auto most = view.segment_BT.max() + 2;
    const auto text_N = at::floor_divide(found.place_N, found.tokens) * most + segment_N;
    count_S = std::get<2>(at::unique_consecutive(text_N, /*return_inverse=*/false, /*return_counts=*/true));
  } else {
    count_S = computed_BT.sum(1);
  }
  found.layout.start_S1 =
      at::constant_pad_nd(count_S.to(at::kCPU, at::kLong).cumsum(0), {1, 0}, 0).contiguous();
  found.layout.causal = view.ordered;
  if (decision.value_weight_BT.defined())
    found.value_weight_N = decision.value_weight_BT.flatten().index_select(0, found.place_N);
  if (!decision.computed_BT.is_same(decision.active_BT))
    found.layout.key_N = decision.active_BT.flatten().index_select(0, found.place_N);
  return found;
}

}  // namespace fathom
