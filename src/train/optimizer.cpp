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

at::Tensor gradient_norm(const std::vector<at::Tensor>& gradients) {
  const torch::NoGradGuard no_grad;
  FATHOM_CHECK(!gradients.empty(), "[gradient_norm] expected at least one gradient");
  if (gradients.size() == 1) return at::linalg_vector_norm(gradients[0]);
  return at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients)));
}

void clip_gradients(const std::vector<at::Tensor>& gradients, const at::Tensor& norm, double max_norm) {
  if (max_norm <= 0) return;
  const torch::NoGradGuard no_grad;
  at::_foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp_max(1.0));
}

AdamW::AdamW(std::vector<ParameterGroup> groups, const OptimizerConfig& config)
    : beta1_(config.beta1), beta2_(config.beta2), epsilon_(config.epsilon) {
  FATHOM_CHECK(!groups.empty(), "[AdamW] expected parameters to train");
  const at::Device device = groups.front().parameters.front().second.device();
  step_ = at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device));
  // The CUDA kernel reads float32; the CPU's takes a double, without loss.
  const auto rate_options = step_.options().dtype(device.is_cpu() ? at::kDouble : at::kFloat);
  for (ParameterGroup& source : groups) {
    Group& group = groups_.emplace_back(
        Group{source.learning_rate_scale, source.weight_decay,
              at::full({}, config.learning_rate * source.learning_rate_scale, rate_options)});
    for (auto& [name, parameter] : source.parameters) {
      group.names.push_back(name);
      group.parameters.push_back(parameter);
      group.first.push_back(at::zeros_like(parameter.detach()));
      group.second.push_back(at::zeros_like(parameter.detach()));
      group.steps.push_back(step_);
    }
  }
}

void AdamW::set_learning_rate(double learning_rate) {
  const torch::NoGradGuard no_grad;
  for (Group& group : groups_) group.learning_rate.fill_(learning_rate * group.learning_rate_scale);
}

void AdamW::step(const at::Tensor& skip) {
  const torch::NoGradGuard no_grad;
  step_.add_(1);
  std::optional<at::Tensor> found_inf;
  if (skip.defined()) {
    step_.sub_(skip);
    found_inf = skip;
  }
  for (Group& group : groups_) {
    std::vector<at::Tensor> gradients;
    gradients.reserve(group.parameters.size());
    for (const at::Tensor& parameter : group.parameters) gradients.push_back(parameter.grad());
    at::_fused_adamw_(group.parameters, gradients, group.first, group.second, /*max_exp_avg_sqs=*/{},
                      group.steps, group.learning_rate, beta1_, beta2_, group.weight_decay, epsilon_,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, found_inf);
  }
}

TensorMap AdamW::state() const {
  TensorMap state{{"step", step_}};
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i) {
      state["first." + group.names[i]] = group.first[i];
      state["second." + group.names[i]] = group.second[i];
    }
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
