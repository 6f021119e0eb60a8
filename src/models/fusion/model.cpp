#include "models/fusion/model.h"

#include <ATen/ATen.h>

#include "base/error.h"

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

at::Tensor attend(torch::nn::ModuleList layers, int64_t which, const at::Tensor& x_BTD,
                  const at::Tensor& states_BSD) {
  return layers[static_cast<size_t>(which)]->as<GatedCrossAttention>()->forward(x_BTD, states_BSD);
}

/// True at the question's tokens: [B, 1, 1, T].
at::Tensor prompt_mask(const PromptedTokens& text) {
  const at::Tensor& length_B = text.prompt_length_B.defined() ? text.prompt_length_B : text.length_B;
  const auto place_T = at::arange(text.tokens_BT.size(1), length_B.options());
  return place_T.unsqueeze(0).lt(length_B.unsqueeze(1)).unsqueeze(1).unsqueeze(1);
}

}  // namespace

MemoryAggregatorImpl::MemoryAggregatorImpl(const CrossAttentionOptions& options, int64_t slots) {
  query_MD_ = register_parameter("query", at::empty({slots, options.dim}));
  query_norm_ = register_module("query_norm", RMSNorm(options.dim, options.norm_eps));
  state_norm_ = register_module("state_norm", RMSNorm(options.dim, options.norm_eps));
  attention_ = register_module("attention", CrossAttention(options));
}

at::Tensor MemoryAggregatorImpl::forward(const at::Tensor& states_BSD, const at::Tensor& mask_B11S) {
  const auto query_BMD =
      query_MD_.to(states_BSD.scalar_type()).unsqueeze(0).expand({states_BSD.size(0), -1, -1}).contiguous();
  return query_BMD + attention_(query_norm_(query_BMD), state_norm_(states_BSD), mask_B11S);
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
  if (config.progressive()) {
    early_ = register_module("early", gated_layers(config, config.early_layers));
    late_ = register_module("late", gated_layers(config, config.late_layers));
    if (config.late_layers > 0)
      aggregator_ =
          register_module("aggregator", MemoryAggregator(cross_options(config), config.memory_slots));
  }
  if (config.answer == AnswerKind::kGenerated) return;
  if (config.answers.empty()) fail(ErrorKind::kConfig, "model.answers: a model that chooses needs answers");
  answer_head_ = register_module("answer_head",
                                 Linear(LinearOptions{.in = config.text.dim, .out = config.num_classes()}));
}

at::Tensor FusionImpl::perceive(const at::Tensor& image_BCHW, const ForwardContext& context) {
  if (!config_.sees()) return {};
  const auto region_BPD = vision_->features(image_BCHW, context);
  if (config_.fusion == FusionKind::kConcatPooled) return adapter_(region_BPD.mean(1, /*keepdim=*/true));
  const auto adapted_BPD = adapter_(region_BPD);
  FATHOM_CHECK(adapted_BPD.size(1) == position_PD_.size(0),
               "[fusion] expected pictures of {} regions, got {}", position_PD_.size(0), adapted_BPD.size(1));
  return adapted_BPD + position_PD_.to(adapted_BPD.scalar_type());
}

at::Tensor FusionImpl::remember(const at::Tensor& region_BPD, const at::Tensor& x_BTD,
                                const PromptedTokens& text) {
  auto mask_B11S = prompt_mask(text);
  if (!region_BPD.defined()) return aggregator_(x_BTD, mask_B11S);
  const auto seen_B11P = at::ones({x_BTD.size(0), 1, 1, region_BPD.size(1)}, mask_B11S.options());
  return aggregator_(at::cat({region_BPD.to(x_BTD.scalar_type()), x_BTD}, 1),
                     at::cat({seen_B11P, mask_B11S}, 3));
}

Conditioning FusionImpl::progressive_conditioning(const at::Tensor& region_BPD, const PromptedTokens& text) {
  const int64_t first_late = config_.text.layers - config_.late_layers;
  return {.before_block = [this, region_BPD, text, first_late, memory_BMD = at::Tensor()](
                              int64_t layer, const at::Tensor& x_BTD) mutable {
    auto y_BTD = x_BTD;
    if (layer < config_.early_layers && region_BPD.defined())
      y_BTD = attend(early_, layer, y_BTD, region_BPD.to(y_BTD.scalar_type()));
    if (layer < first_late) return y_BTD;
    if (layer == first_late) memory_BMD = remember(region_BPD, y_BTD, text);
    return attend(late_, layer - first_late, y_BTD, memory_BMD);
  }};
}

at::Tensor FusionImpl::hidden(const at::Tensor& region_BPD, const PromptedTokens& text,
                              const ForwardContext& context) {
  const Conditioning conditioning = config_.progressive() ? progressive_conditioning(region_BPD, text)
                                                          : Conditioning{.prefix_BPD = region_BPD};
  return text_->hidden(text.tokens_BT, text.length_B, context, /*cache=*/nullptr, conditioning);
}

at::Tensor FusionImpl::class_logits(const at::Tensor& region_BPD, const PromptedTokens& text,
                                    const ForwardContext& context) {
  FATHOM_CHECK(!answer_head_.is_empty(), "[fusion] this model generates its answers");
  return answer_head_(text_->pool(hidden(region_BPD, text, context), text.length_B));
}

void FusionImpl::initialise(ParameterInit& init) const {
  if (position_PD_.defined()) init.normal("region_position", 0.02);
}

}  // namespace fathom
