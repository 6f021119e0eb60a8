#include "train/optimizer.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/name_pattern.h"
#include "train/parameter_depth.h"

namespace fathom {

void ParameterRule::fields(Fields& f) {
  f("pattern", pattern, "names of parameters; * stands for any characters");
  f("learning_rate_scale", learning_rate_scale, "times the schedule's learning rate", {.low = 0});
  f("weight_decay", weight_decay, "instead of the usual one; -1 keeps it", {.low = -1});
}

void OptimizerConfig::fields(Fields& f) {
  f("learning_rate", learning_rate, "peak learning rate", {.low = 0});
  f("beta1", beta1, "memory of the first moment", {.low = 0, .high = 0.99999});
  f("beta2", beta2, "memory of the second moment", {.low = 0, .high = 0.99999});
  f("epsilon", epsilon, "added to the root of the second moment", {.low = 0});
  f("weight_decay", weight_decay, "decoupled decay of weights; norms and biases have none", {.low = 0});
  f("clip_norm", clip_norm, "largest global norm of the gradient; 0 is unlimited", {.low = 0});
  f("freeze", freeze, "patterns of parameters that stay as they are");
  f("freeze_layers", freeze_layers,
    "lowest layers of each tower that stay as they are, with the embedding below them", {.low = 0});
  f("layer_decay", layer_decay,
    "learning rate of a layer as a share of that of the layer above it, down to the embedding",
    {.low = 0.01, .high = 1});
  f.list("rules", rules, "learning rates and decays of parameters by name");
}

namespace {

std::vector<std::string> names_of(const NamedParameters& parameters) {
  std::vector<std::string> names;
  for (const auto& [name, parameter] : parameters) names.push_back(name);
  return names;
}

void require_any(const NamedParameters& parameters, const char* key) {
  const bool any = std::any_of(parameters.begin(), parameters.end(),
                               [](const auto& entry) { return entry.second.requires_grad(); });
  if (!any) fail(ErrorKind::kConfig, "{}: nothing is left to train", key);
}

}  // namespace

void freeze_parameters(const NamedParameters& parameters, const std::vector<std::string>& patterns) {
  const std::vector<std::string> names = names_of(parameters);
  for (const std::string& pattern : patterns) {
    require_match(pattern, names, "optimizer.freeze");
    for (auto [name, parameter] : parameters)
      if (matches(pattern, name)) parameter.set_requires_grad(false);
  }
  require_any(parameters, "optimizer.freeze");
}

void freeze_lower_layers(const NamedParameters& parameters, int64_t count) {
  if (count == 0) return;
  const std::vector<ParameterDepth> depths = parameter_depths(parameters);
  int64_t deepest = 0;
  for (const ParameterDepth& place : depths) deepest = std::max(deepest, place.layers);
  if (count > deepest)
    fail(ErrorKind::kConfig, "optimizer.freeze_layers: {} layers, the deepest tower has {}", count, deepest);
  for (size_t i = 0; i < parameters.size(); ++i)
    if (depths[i].depth <= std::min(count, depths[i].layers) && depths[i].layers > 0)
      at::Tensor(parameters[i].second).set_requires_grad(false);
  require_any(parameters, "optimizer.freeze_layers");
}

namespace {

bool is_decayed(const std::string& name, const at::Tensor& parameter) {
  return parameter.dim() > 1 && name.find("bias") == std::string::npos;
}

}  // namespace

std::vector<ParameterGroup> group_parameters(const NamedParameters& parameters,
                                             const OptimizerConfig& config) {
  const std::vector<std::string> names = names_of(parameters);
  for (const ParameterRule& rule : config.rules)
    require_match(rule.pattern, names, "optimizer.rules.pattern");
  const std::vector<ParameterDepth> depths = parameter_depths(parameters);
  std::map<std::pair<double, double>, ParameterGroup> groups;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, parameter] = parameters[i];
    if (!parameter.requires_grad()) continue;
    double scale = 1.0;
    double decay = is_decayed(name, parameter) ? config.weight_decay : 0.0;
    for (const ParameterRule& rule : config.rules) {
      if (!matches(rule.pattern, name)) continue;
      scale = rule.learning_rate_scale;
      if (rule.weight_decay >= 0) decay = rule.weight_decay;
    }
    scale *= std::pow(config.layer_decay, static_cast<double>(depths[i].from_top()));
    ParameterGroup& group = groups[{scale, decay}];
    group.learning_rate_scale = scale;
    group.weight_decay = decay;
    group.parameters.emplace_back(name, parameter);
  }
  std::vector<ParameterGroup> result;
  for (auto& [key, group] : groups) result.push_back(std::move(group));
  return result;
}

AdamW::AdamW(std::vector<ParameterGroup> groups, const OptimizerConfig& config)
    : settings_{config.beta1, config.beta2, config.epsilon, config.clip_norm} {
  FATHOM_CHECK(!groups.empty(), "[AdamW] expected parameters to train");
  for (const ParameterGroup& group : groups) {
    for (const auto& [name, parameter] : group.parameters) {
      names_.push_back(name);
      tensors_.parameters.push_back(parameter);
      tensors_.first.push_back(at::zeros_like(parameter.detach()));
      tensors_.second.push_back(at::zeros_like(parameter.detach()));
      tensors_.learning_rate_scales.push_back(group.learning_rate_scale);
      tensors_.weight_decays.push_back(group.weight_decay);
    }
  }
  for (auto* list : {&tensors_.gradients, &tensors_.averages, &tensors_.copies}) list->resize(names_.size());
  const auto options = at::TensorOptions().device(tensors_.parameters.front().device());
  step_ = at::zeros({}, options.dtype(at::kFloat));
  learning_rate_ = at::full({}, config.learning_rate, options.dtype(at::kDouble));
}

void AdamW::set_learning_rate(double learning_rate) {
  const torch::NoGradGuard no_grad;
  learning_rate_.fill_(learning_rate);
}

void AdamW::set_averages(const TensorMap& averages, const at::Tensor& weight) {
  for (size_t i = 0; i < names_.size(); ++i)
    if (const auto found = averages.find(names_[i]); found != averages.end())
      tensors_.averages[i] = found->second;
  average_weight_ = weight;
}

/// Anew at each step, since whoever owns them may have put others in their place.
void AdamW::take_gradients() {
  for (size_t i = 0; i < names_.size(); ++i) {
    const at::Tensor& gradient = tensors_.parameters[i].grad();
    FATHOM_CHECK(gradient.defined(), "[AdamW] {} has no gradient", names_[i]);
    tensors_.gradients[i] = gradient.contiguous();
  }
}

/// Up to date before the step, since one that is skipped leaves them as they are.
void AdamW::take_copies() {
  copies_->refresh();
  for (size_t i = 0; i < names_.size(); ++i) tensors_.copies[i] = copies_->kept(tensors_.parameters[i]);
}

at::Tensor AdamW::gradient_norm(const at::Tensor& divisor) {
  const torch::NoGradGuard no_grad;
  take_gradients();
  return kernels::gradient_norm(tensors_, divisor, table_);
}

void AdamW::step(const GradientTerms& gradients) {
  const torch::NoGradGuard no_grad;
  take_gradients();
  if (copies_ != nullptr) take_copies();
  kernels::adamw_step(tensors_,
                      {.step = step_,
                       .learning_rate = learning_rate_,
                       .average_weight = average_weight_,
                       .norm = gradients.norm,
                       .divisor = gradients.divisor,
                       .skip = gradients.skip,
                       .saturated = copies_ != nullptr ? copies_->saturated() : at::Tensor()},
                      settings_, table_);
  if (copies_ == nullptr) return;
  for (const at::Tensor& parameter : tensors_.parameters) copies_->follow(parameter);
}

TensorMap AdamW::state() const {
  TensorMap state{{"step", step_}};
  for (size_t i = 0; i < names_.size(); ++i) {
    state["first." + names_[i]] = tensors_.first[i];
    state["second." + names_[i]] = tensors_.second[i];
  }
  return state;
}

void AdamW::load_state(const TensorMap& state) {
  const torch::NoGradGuard no_grad;
  for (auto& [name, tensor] : this->state()) {
    const auto found = state.find(name);
    if (found == state.end() || found->second.sizes() != tensor.sizes())
      fail(ErrorKind::kCheckpoint, "the optimizer's state for {} is absent or of another shape", name);
    tensor.copy_(found->second);
  }
}

}  // namespace fathom
