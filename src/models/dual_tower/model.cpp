#include "models/dual_tower/model.h"

#include <ATen/ATen.h>

#include <cmath>

namespace fathom {
namespace {

constexpr double kMaxScale = 100.0;

LinearOptions projection(int64_t in, int64_t out) {
  return {.in = in, .out = out, .bias = false, .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))};
}

/// To unit length, in float32 or wider.
at::Tensor normalise(const at::Tensor& x_BD) {
  const auto wide = x_BD.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto x = x_BD.to(wide);
  return x / at::linalg_vector_norm(x, 2, {-1}, true).clamp_min(1e-12);
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
  log_scale_ = register_parameter("log_scale", at::empty({}));
  if (config.logit_bias) bias_ = register_parameter("logit_bias", at::empty({}));
}

at::Tensor DualTowerImpl::embed_image(const at::Tensor& image_BCHW, const ForwardContext& context) {
  return project_image(vision_->forward(image_BCHW, context), context);
}

at::Tensor DualTowerImpl::project_image(const at::Tensor& pooled_BD, const ForwardContext& context) const {
  return normalise(image_projection_->forward(pooled_BD, context));
}

at::Tensor DualTowerImpl::embed_text(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                                     const ForwardContext& context) {
  return normalise(text_projection_(text_->pooled(tokens_BT, length_B, context), context));
}

at::Tensor DualTowerImpl::logit_scale() const {
  const auto log_scale = log_scale_.to(at::promote_types(log_scale_.scalar_type(), at::kFloat));
  // Beyond the bound the gradient stays that of the bound, so that the parameter finds its way back.
  return (log_scale + (log_scale.clamp_max(std::log(kMaxScale)) - log_scale).detach()).exp();
}

at::Tensor DualTowerImpl::logit_bias() const {
  return bias_.defined() ? bias_.to(at::promote_types(bias_.scalar_type(), at::kFloat)) : bias_;
}

void DualTowerImpl::initialise(ParameterInit& init) const {
  init.constant("log_scale", -std::log(config_.initial_temperature));
  if (config_.logit_bias) init.constant("logit_bias", config_.initial_bias);
}

}  // namespace fathom
