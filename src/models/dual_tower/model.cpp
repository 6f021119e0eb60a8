#include "models/dual_tower/model.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "nn/temperature.h"

namespace fathom {
namespace {

LinearOptions projection(int64_t in, int64_t out) {
  return {.in = in, .out = out, .bias = false, .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))};
}

at::Tensor adapt(const Adapter& adapter, const at::Tensor& x) {
  return adapter.is_empty() ? x : adapter.ptr()->forward(x);
}

}  // namespace

DualTowerImpl::DualTowerImpl(const DualTowerConfig& config) : config_(config) {
  config.validate();
  vision_ = register_module("vision", Swin(config.vision));
  text_ = register_module("text", LanguageModel(config.text));
  image_projection_ =
      register_module("image_projection", Linear(projection(config.vision.output_dim(), config.embed_dim)));
  text_projection_ =
      register_module("text_projection", Linear(projection(config.text.dim, config.embed_dim)));
  if (config.hears) {
    audio_ = register_module("audio", AudioEncoder(config.audio));
    audio_projection_ =
        register_module("audio_projection", Linear(projection(config.audio.dim, config.embed_dim)));
  }
  log_scale_ = register_parameter("log_scale", at::empty({}));
  if (config.logit_bias) bias_ = register_parameter("logit_bias", at::empty({}));
  if (config.adapters > 0) {
    image_adapter_ = register_module(
        "image_adapter",
        Adapter(AdapterOptions{.dim = config.vision.output_dim(), .bottleneck = config.adapters}));
    text_adapter_ = register_module(
        "text_adapter", Adapter(AdapterOptions{.dim = config.text.dim, .bottleneck = config.adapters}));
    if (config.hears)
      audio_adapter_ = register_module(
          "audio_adapter", Adapter(AdapterOptions{.dim = config.audio.dim, .bottleneck = config.adapters}));
  }
  if (config.region != RegionScore::kNone)
    region_ = register_module(
        "region", ModalAttention(ModalAttentionOptions{.score = config.region,
                                                       .text_dim = config.text.dim,
                                                       .region_dim = config.vision.output_dim(),
                                                       .dim = config.embed_dim,
                                                       .initial_temperature = config.initial_temperature,
                                                       .logit_bias = config.logit_bias,
                                                       .initial_bias = config.initial_bias}));
}

at::Tensor DualTowerImpl::embed_image(const at::Tensor& image_BCHW, const ForwardContext& context) {
  return project_image(vision_->forward(image_BCHW, context), context);
}

at::Tensor DualTowerImpl::project_image(const at::Tensor& pooled_BD, const ForwardContext& context) const {
  return unit_length(image_projection_->forward(adapt(image_adapter_, pooled_BD), context));
}

at::Tensor DualTowerImpl::embed_text(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                                     const ForwardContext& context) {
  return unit_length(
      text_projection_(adapt(text_adapter_, text_->pooled(tokens_BT, length_B, context)), context));
}

PairSide DualTowerImpl::encode_image(const at::Tensor& image_BCHW, const ForwardContext& context) {
  return encode_regions(vision_->features(image_BCHW, context), context);
}

PairSide DualTowerImpl::encode_regions(const at::Tensor& region_BPD, const ForwardContext& context) const {
  const at::Tensor whole_BD = project_image(region_BPD.mean(1), context);
  if (region_.is_empty()) return {.whole_ND = whole_BD};
  return region_->regions(adapt(image_adapter_, region_BPD), whole_BD);
}

PairSide DualTowerImpl::encode_text(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                                    const ForwardContext& context) {
  const at::Tensor state_BTD = text_->hidden(tokens_BT, length_B, context);
  const at::Tensor pooled_BD = text_->pool(state_BTD, length_B);
  const at::Tensor whole_BD = unit_length(text_projection_(adapt(text_adapter_, pooled_BD), context));
  if (region_.is_empty()) return {.whole_ND = whole_BD, .length_N = length_B};
  return region_->tokens(adapt(text_adapter_, state_BTD), length_B, whole_BD);
}

at::Tensor DualTowerImpl::embed_sound(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                                      const ForwardContext& context) {
  FATHOM_CHECK(!audio_.is_empty(), "[dual_tower] expected a model with a tower for sounds");
  return unit_length(
      audio_projection_(adapt(audio_adapter_, audio_->pooled(mel_BFS, frames_B, context)), context));
}

PairSide DualTowerImpl::encode_sound(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                                     const ForwardContext& context) {
  return {.whole_ND = embed_sound(mel_BFS, frames_B, context)};
}

at::Tensor DualTowerImpl::logit_scale() const {
  return bounded_scale(log_scale_);
}

at::Tensor DualTowerImpl::logit_bias() const {
  return bias_.defined() ? bias_.to(at::promote_types(bias_.scalar_type(), at::kFloat)) : bias_;
}

void DualTowerImpl::initialise(ParameterInit& init) const {
  init.constant("log_scale", -std::log(config_.initial_temperature));
  if (config_.logit_bias) init.constant("logit_bias", config_.initial_bias);
}

}  // namespace fathom
