#include "models/fusion/model.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "nn/grid_code.h"

namespace fathom {
namespace {

CrossAttentionOptions cross_options(const FusionConfig& config) {
  return {.dim = config.text.dim,
          .heads = config.cross_heads,
          .head_dim = config.cross_head_dim,
          .norm_eps = config.text.norm_eps,
          .initial_gate = config.initial_gate};
}

torch::nn::ModuleList gated_layers(const FusionConfig& config, int64_t count) {
  torch::nn::ModuleList layers;
  for (int64_t i = 0; i < count; ++i) layers->push_back(GatedCrossAttention(cross_options(config)));
  return layers;
}

GatedCrossAttentionImpl& gated_layer(torch::nn::ModuleList layers, int64_t which) {
  return *layers[static_cast<size_t>(which)]->as<GatedCrossAttention>();
}

/// True at the question's tokens: [B, T].
at::Tensor prompt_mask(const PromptedTokens& text) {
  const at::Tensor& length_B = text.prompt_length_B.defined() ? text.prompt_length_B : text.length_B;
  const auto place_T = at::arange(text.tokens_BT.size(1), length_B.options());
  return place_T.unsqueeze(0).lt(length_B.unsqueeze(1));
}

at::Tensor mask_of(const ModalityTokens& tokens) {
  if (tokens.mask_BS.defined()) return tokens.mask_BS;
  return at::ones({tokens.token_BSD.size(0), tokens.token_BSD.size(1)},
                  tokens.token_BSD.options().dtype(at::kBool).requires_grad(false));
}

ModalityTokens in_type(const ModalityTokens& tokens, at::ScalarType type) {
  return {tokens.token_BSD.to(type), tokens.mask_BS};
}

/// One modality behind the other; no mask where none has one.
AttendedStates joined(const std::vector<ModalityTokens>& modalities) {
  std::vector<at::Tensor> states, masks;
  bool masked = false;
  for (const ModalityTokens& tokens : modalities) {
    states.push_back(tokens.token_BSD);
    masks.push_back(mask_of(tokens));
    masked = masked || tokens.mask_BS.defined();
  }
  AttendedStates all{.state_BSD = at::cat(states, 1)};
  if (masked) all.mask = at::cat(masks, 1).unsqueeze(1).unsqueeze(1);
  return all;
}

/// A caption and the question beside it are read by the same layers, and share what their sample weighs for
/// the gates of these.
ForwardContext half(ForwardContext context) {
  context.sample_share /= 2;
  return context;
}

/// Weights [B, N] as what each state is multiplied with: [B, S].
at::Tensor spread(const at::Tensor& weight_BN, const std::vector<ModalityTokens>& modalities) {
  std::vector<at::Tensor> present, parts;
  for (const ModalityTokens& tokens : modalities) present.push_back(mask_of(tokens).any(1));
  const at::Tensor scaled_BN = weight_BN * at::stack(present, 1).sum(1, /*keepdim=*/true);
  for (size_t n = 0; n < modalities.size(); ++n)
    parts.push_back(scaled_BN.select(1, static_cast<int64_t>(n))
                        .unsqueeze(1)
                        .expand({-1, modalities[n].token_BSD.size(1)}));
  return at::cat(parts, 1);
}

}  // namespace

MemoryAggregatorImpl::MemoryAggregatorImpl(const CrossAttentionOptions& options, int64_t slots,
                                           int64_t weight_width) {
  query_MD_ = register_parameter("query", at::empty({slots, options.dim}));
  query_norm_ = register_module("query_norm", RMSNorm(options.dim, options.norm_eps));
  state_norm_ = register_module("state_norm", RMSNorm(options.dim, options.norm_eps));
  attention_ = register_module("attention", CrossAttention(options));
  if (weight_width > 0)
    weight_ = register_module("modality_weight", ModalityWeight(options.dim, weight_width));
}

at::Tensor MemoryAggregatorImpl::forward(const std::vector<ModalityTokens>& modalities,
                                         const ForwardContext& context, FusionTrace* trace) {
  AttendedStates all = joined(modalities);
  all.state_BSD = state_norm_(all.state_BSD);
  if (!weight_.is_empty()) {
    std::vector<int64_t> sizes;
    for (const ModalityTokens& tokens : modalities) sizes.push_back(tokens.token_BSD.size(1));
    const at::Tensor weight_BN =
        weight_->forward(all.state_BSD, all.mask.squeeze(1).squeeze(1), sizes, context);
    all.weight_BS = spread(weight_BN, modalities);
    if (trace) trace->weight_BN = weight_BN.detach();
  }
  const auto query_BMD = query_MD_.to(all.state_BSD.scalar_type())
                             .unsqueeze(0)
                             .expand({all.state_BSD.size(0), -1, -1})
                             .contiguous();
  at::Tensor* attention = trace && trace->with_attention ? &trace->memory_BMS : nullptr;
  return query_BMD + attention_->forward(query_norm_(query_BMD), all, context, attention);
}

void MemoryAggregatorImpl::initialise(ParameterInit& init) const {
  init.normal("query", 0.02);
}

FusionImpl::FusionImpl(const FusionConfig& config) : config_(config) {
  config.validate();
  text_ = register_module("text", LanguageModel(config.text));
  if (config.sees()) {
    vision_ = register_module("vision", Swin(config.vision));
    adapter_ = register_module("adapter", Bottleneck(BottleneckOptions{.in = config.vision.output_dim(),
                                                                       .inner = config.adapter_dim,
                                                                       .out = config.text.dim}));
    if (config.fusion != FusionKind::kConcatPooled)
      position_PD_ =
          register_parameter("region_position", at::empty({config.vision.num_regions(), config.text.dim}));
  }
  if (config.captions)
    caption_adapter_ = register_module(
        "caption_adapter", Bottleneck(BottleneckOptions{
                               .in = config.text.dim, .inner = config.adapter_dim, .out = config.text.dim}));
  if (config.progressive()) {
    early_ = register_module("early", gated_layers(config, config.early_layers));
    late_ = register_module("late", gated_layers(config, config.late_layers));
    if (config.late_layers > 0)
      aggregator_ =
          register_module("aggregator", MemoryAggregator(cross_options(config), config.memory_slots,
                                                         config.weighs() ? config.cross_head_dim : 0));
  }
  if (config.answer == AnswerKind::kGenerated) return;
  if (config.answers.empty()) fail(ErrorKind::kConfig, "model.answers: a model that chooses needs answers");
  answer_head_ = register_module("answer_head",
                                 Linear(LinearOptions{.in = config.text.dim, .out = config.num_classes()}));
}

Percept FusionImpl::perceive(const at::Tensor& image_BCHW, const ForwardContext& context) {
  if (!config_.sees()) return {};
  const auto region_BPD = vision_->features(image_BCHW, context);
  if (config_.fusion == FusionKind::kConcatPooled)
    return {.image = {adapter_(region_BPD.mean(1, /*keepdim=*/true), context)}};
  const auto adapted_BPD = adapter_(region_BPD, context);
  FATHOM_CHECK(adapted_BPD.size(1) == position_PD_.size(0),
               "[fusion] expected pictures of {} regions, got {}", position_PD_.size(0), adapted_BPD.size(1));
  return {.image = {adapted_BPD + position_PD_.to(adapted_BPD.scalar_type())}};
}

ModalityTokens FusionImpl::read(const PromptedTokens& caption, const ForwardContext& context) {
  FATHOM_CHECK(!caption_adapter_.is_empty(), "[fusion] this model reads no captions");
  const auto state_BSD = text_->hidden(caption.tokens_BT, caption.length_B, half(context));
  // States at padded places mean nothing, but a product with weight 0 would let NaN through.
  const at::Tensor mask_BS = prompt_mask({caption.tokens_BT, caption.length_B});
  const at::Tensor token_BSD = caption_adapter_(state_BSD, context);
  return {token_BSD.masked_fill(mask_BS.logical_not().unsqueeze(2), 0), mask_BS};
}

/// One pass of the language model; lives as long as it.
struct FusionImpl::Pass {
  std::vector<ModalityTokens> seen;  ///< what there is beside the text
  at::Tensor prompt_BT;              ///< bool
  ForwardContext context;
  FusionTrace* trace = nullptr;
};

Conditioning FusionImpl::progressive_conditioning(const Pass& pass) {
  const int64_t first_late = config_.text.layers - config_.late_layers;
  return {.before_block = [this, pass, first_late, memory_BMD = at::Tensor()](
                              int64_t layer, const at::Tensor& x_BTD) mutable {
    auto y_BTD = x_BTD;
    const bool traced = pass.trace && pass.trace->with_attention;
    std::vector<ModalityTokens> modalities;
    for (const ModalityTokens& tokens : pass.seen) modalities.push_back(in_type(tokens, y_BTD.scalar_type()));
    if (layer < config_.early_layers && !modalities.empty()) {
      at::Tensor attention_BTS;
      y_BTD = gated_layer(early_, layer)
                  .forward(y_BTD, joined(modalities), pass.context, traced ? &attention_BTS : nullptr);
      if (traced) {
        at::Tensor& mean_BTS = pass.trace->reading_BTS;
        attention_BTS = attention_BTS / static_cast<double>(config_.early_layers);
        mean_BTS = mean_BTS.defined() ? mean_BTS + attention_BTS : attention_BTS;
      }
    }
    if (layer < first_late) return y_BTD;
    if (layer == first_late) {
      modalities.push_back({y_BTD, pass.prompt_BT});
      memory_BMD = aggregator_->forward(modalities, pass.context, pass.trace);
    }
    return gated_layer(late_, layer - first_late).forward(y_BTD, {.state_BSD = memory_BMD}, pass.context);
  }};
}

at::Tensor FusionImpl::hidden(const Percept& percept, const PromptedTokens& text,
                              const ForwardContext& context, FusionTrace* trace) {
  Conditioning conditioning{.prefix_BPD = percept.image.token_BSD};
  if (config_.progressive()) {
    Pass pass{.seen = {}, .prompt_BT = prompt_mask(text), .context = context, .trace = trace};
    for (const ModalityTokens* tokens : {&percept.image, &percept.caption})
      if (tokens->defined()) pass.seen.push_back(*tokens);
    conditioning = progressive_conditioning(pass);
  }
  return text_->hidden(text.tokens_BT, text.length_B, percept.caption.defined() ? half(context) : context,
                       /*cache=*/nullptr, conditioning);
}

at::Tensor FusionImpl::class_logits(const Percept& percept, const PromptedTokens& text,
                                    const ForwardContext& context, FusionTrace* trace) {
  FATHOM_CHECK(!answer_head_.is_empty(), "[fusion] this model generates its answers");
  return answer_head_(text_->pool(hidden(percept, text, context, trace), text.length_B), context,
                      Feeds::kLoss);
}

void FusionImpl::initialise(ParameterInit& init) const {
  if (!position_PD_.defined()) return;
  if (config_.region_positions == PlaceCode::kSinusoidal)
    init.values("region_position",
                grid_code(config_.vision.stage_side(config_.vision.num_stages() - 1), config_.text.dim));
  else
    init.normal("region_position", 0.02);
}

}  // namespace fathom
