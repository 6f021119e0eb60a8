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

at::Tensor adapt(const Adapter& adapter, const at::Tensor& x, const ForwardContext& context) {
  return adapter.is_empty() ? x : adapter.ptr()->forward(x, context);
}

/// A modality's features in the shared space, of unit length before and after its centre is taken off.
at::Tensor shared(const at::Tensor& projected_BD, const at::Tensor& centre_D) {
  const at::Tensor unit_BD = unit_length(projected_BD);
  return centre_D.defined() ? unit_length(unit_BD - centre_D.to(unit_BD.scalar_type())) : unit_BD;
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
  if (config.audio_tower) {
    audio_ = register_module("audio", AudioEncoder(config.audio));
    audio_projection_ =
        register_module("audio_projection", Linear(projection(config.audio.dim, config.embed_dim)));
  }
  log_scale_ = register_parameter("log_scale", at::empty({}));
  if (config.logit_bias) bias_ = register_parameter("logit_bias", at::empty({}));
  const auto centre = [&](const char* name) {
    return register_parameter(name, at::zeros({config.embed_dim}), /*requires_grad=*/false);
  };
  if (config.centred) {
    image_centre_ = centre("image_centre");
    text_centre_ = centre("text_centre");
    if (config.audio_tower) audio_centre_ = centre("audio_centre");
  }
  if (config.adapters > 0) {
    image_adapter_ = register_module(
        "image_adapter",
        Adapter(AdapterOptions{.dim = config.vision.output_dim(), .bottleneck = config.adapters}));
    text_adapter_ = register_module(
        "text_adapter", Adapter(AdapterOptions{.dim = config.text.dim, .bottleneck = config.adapters}));
    if (config.audio_tower)
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

at::Tensor DualTowerImpl::region_features(const at::Tensor& image_BCHW, const ForwardContext& context) {
  const at::Tensor region_BPD = vision_->features(image_BCHW, context);
  if (!config_.mirrored || context.training) return region_BPD;
  const at::Tensor mirrored_BPD = vision_->features(image_BCHW.flip(3), context);
  const int64_t columns = config_.vision.stage_side(config_.vision.num_stages() - 1, image_BCHW.size(3));
  const at::Tensor back_BPD = mirrored_BPD.unflatten(1, {-1, columns}).flip(2).flatten(1, 2);
  return (region_BPD + back_BPD) / 2;
}

at::Tensor DualTowerImpl::embed_image(const at::Tensor& image_BCHW, const ForwardContext& context) {
  return project_image(region_features(image_BCHW, context).mean(1), context);
}

at::Tensor DualTowerImpl::project_image(const at::Tensor& pooled_BD, const ForwardContext& context) const {
  return shared(image_projection_->forward(adapt(image_adapter_, pooled_BD, context), context, Feeds::kLoss),
                image_centre_);
}

at::Tensor DualTowerImpl::embed_text(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                                     const ForwardContext& context) {
  return project_text(text_->pooled(tokens_BT, length_B, context), context);
}

at::Tensor DualTowerImpl::project_text(const at::Tensor& pooled_BD, const ForwardContext& context) const {
  return shared(text_projection_->forward(adapt(text_adapter_, pooled_BD, context), context, Feeds::kLoss),
                text_centre_);
}

PairSide DualTowerImpl::encode_image(const at::Tensor& image_BCHW, const ForwardContext& context) {
  return encode_regions(region_features(image_BCHW, context), context);
}

PairSide DualTowerImpl::encode_regions(const at::Tensor& region_BPD, const ForwardContext& context) const {
  const at::Tensor whole_BD = project_image(region_BPD.mean(1), context);
  if (region_.is_empty()) return {.whole_ND = whole_BD};
  return region_->regions(adapt(image_adapter_, region_BPD, context), whole_BD, context);
}

PairSide DualTowerImpl::encode_text(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                                    const ForwardContext& context) {
  const at::Tensor state_BTD = text_->hidden(tokens_BT, length_B, context);
  const at::Tensor whole_BD = project_text(text_->pool(state_BTD, length_B), context);
  if (region_.is_empty()) return {.whole_ND = whole_BD, .length_N = length_B};
  return region_->tokens(adapt(text_adapter_, state_BTD, context), length_B, whole_BD, context);
}

at::Tensor DualTowerImpl::embed_sound(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                                      const ForwardContext& context) {
  FATHOM_CHECK(!audio_.is_empty(), "[dual_tower] expected a model with a tower for sounds");
  const at::Tensor pooled_BD = audio_->pooled(mel_BFS, frames_B, context);
  return shared(audio_projection_(adapt(audio_adapter_, pooled_BD, context), context, Feeds::kLoss),
                audio_centre_);
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

std::vector<at::Tensor> DualTowerImpl::centres() const {
  if (!config_.centred) return {};
  if (config_.audio_tower) return {image_centre_, text_centre_, audio_centre_};
  return {image_centre_, text_centre_};
}

void DualTowerImpl::initialise(ParameterInit& init) const {
  init.constant("log_scale", -std::log(config_.initial_temperature));
  if (config_.logit_bias) init.constant("logit_bias", config_.initial_bias);
  if (config_.centred) {
    init.constant("image_centre", 0);
    init.constant("text_centre", 0);
    if (config_.audio_tower) init.constant("audio_centre", 0);
  }
}

}  // namespace fathom
