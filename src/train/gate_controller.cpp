#include "train/gate_controller.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"

namespace fathom {

void GateTrainingConfig::fields(Fields& f) {
  f("explore", explore, "share of the skipped tokens that are computed all the same, to learn their worth",
    {.low = 0, .high = 1});
  f("dense_warmup", dense_warmup,
    "first steps, in which every token is computed; over as many again the target falls from 1 to the "
    "density",
    {.low = 0});
  f("rate", rate, "how fast the density's weight in the objective follows its error", {.low = 0, .high = 10});
  f("damping", damping, "part of that weight which is in proportion to the error", {.low = 0, .high = 100});
  f("score_values", score_values, "a score learns also from what its token's values bring to other tokens");
}

namespace {

/// What stands before the first number: gates of one encoder have it alike. Empty where a model is one.
std::string encoder_of(const std::string& name) {
  const size_t number = name.find_first_of("0123456789");
  return number == 0 ? "" : name.substr(0, number - 1);
}

/// Activated ÷ all token-parameters of the gates that each row weighs; 0 where it saw nothing.
at::Tensor densities(const at::Tensor& weight_RG, const at::Tensor& active_G, const at::Tensor& seen_G) {
  return torch::mv(weight_RG, active_G) / torch::mv(weight_RG, seen_G).clamp_min(1);
}

}  // namespace

GateController::GateController(std::vector<NamedGate> gates, const GateTrainingConfig& config)
    : gates_(std::move(gates)), config_(config) {
  if (gates_.empty()) return;
  for (size_t i = 0; i < gates_.size(); ++i) {
    const TokenGateOptions& options = gates_[i].gate->options();
    const bool joins = i > 0 && options.config.layer_density.empty() &&
                       encoder_of(gates_[i].name) == encoder_of(gates_[i - 1].name);
    if (!joins)
      groups_.push_back(
          {.density = options.config.density_of(options.index), .learns = options.config.learns()});
    groups_.back().gates.push_back(i);
  }
  weigh_gates();
  multiplier_M_ = torch::zeros({static_cast<int64_t>(groups_.size())}, torch::kDouble);
  error_M_ = torch::zeros_like(multiplier_M_);
}

void GateController::weigh_gates() {
  std::vector<double> weights, places;
  std::vector<at::Tensor> encoder_EG, group_MG;
  const at::Tensor none_G = torch::zeros({static_cast<int64_t>(gates_.size())}, torch::kDouble);
  encoder_EG.push_back(torch::ones_like(none_G));
  for (size_t i = 0; i < gates_.size(); ++i) {
    const TokenGateOptions& options = gates_[i].gate->options();
    weights.push_back(static_cast<double>(options.gated_weights));
    places.push_back(static_cast<double>(std::max<int64_t>(1, options.places)));
    const std::string encoder = encoder_of(gates_[i].name);
    if (encoder.empty()) continue;
    if (encoders_.empty() || encoders_.back() != encoder) {
      encoders_.push_back(encoder);
      encoder_EG.push_back(none_G.clone());
    }
    encoder_EG.back()[static_cast<int64_t>(i)] = 1;
  }
  for (const Group& group : groups_) {
    group_MG.push_back(none_G.clone());
    for (const size_t i : group.gates) group_MG.back()[static_cast<int64_t>(i)] = 1;
  }
  const at::Tensor weight_G = torch::tensor(weights, torch::kDouble);
  weight_EG_ = torch::stack(encoder_EG) * weight_G;
  weight_MG_ = torch::stack(group_MG) * weight_G;
  share_MG_ = weight_MG_ * torch::tensor(places, torch::kDouble);
  share_MG_ = share_MG_ / share_MG_.sum(1, /*keepdim=*/true);
}

/// Falls from 1 after the warm-up.
double GateController::target(const Group& group) const {
  const auto warmup = static_cast<double>(config_.dense_warmup);
  const double fallen =
      warmup > 0 ? std::clamp((static_cast<double>(step_) - warmup) / warmup, 0.0, 1.0) : 1.0;
  return 1 + fallen * (group.density - 1);
}

void GateController::set_multipliers() {
  const at::Tensor weighed_MG = (multiplier_M_ + config_.damping * error_M_).unsqueeze(1) * share_MG_;
  if (weighed_MG_.defined() && weighed_MG_.device() == weighed_MG.device()) {
    weighed_MG_.copy_(weighed_MG);
    return;
  }
  weighed_MG_ = weighed_MG;
  for (size_t m = 0; m < groups_.size(); ++m)
    if (groups_[m].learns)
      for (const size_t i : groups_[m].gates)
        gates_[i].gate->set_multiplier(weighed_MG_[static_cast<int64_t>(m)][static_cast<int64_t>(i)]);
}

void GateController::let_choose() {
  for (auto& [name, gate] : gates_) gate->set_dense(false);
}

void GateController::begin(int64_t step) {
  step_ = step;
  for (auto& [name, gate] : gates_) {
    gate->set_dense(is_dense());
    gate->reset_counts();
  }
  if (has_gates()) set_multipliers();
}

at::Tensor GateController::finish(Collective& collective) {
  const torch::NoGradGuard no_grad;
  std::vector<at::Tensor> counts;
  at::Device device = multiplier_M_.device();
  for (const auto& [name, gate] : gates_)
    if (gate->counts().defined()) device = gate->counts().device();
  const at::Tensor nothing = torch::zeros({GateCounts::kSize}, torch::dtype(torch::kDouble).device(device));
  for (const auto& [name, gate] : gates_)
    counts.push_back(gate->counts().defined() ? gate->counts() : nothing);
  at::Tensor count_GC = torch::stack(counts);
  collective.all_reduce(count_GC);
  const at::Tensor seen_G = count_GC.select(1, GateCounts::kTokens);
  const at::Tensor active_G = count_GC.select(1, GateCounts::kActive);
  const at::Tensor tokens_G = seen_G.clamp_min(1);
  for (at::Tensor* ours : {&weight_EG_, &weight_MG_, &share_MG_, &multiplier_M_, &error_M_})
    *ours = ours->to(seen_G.device());
  const at::Tensor density_E = densities(weight_EG_, active_G, seen_G);
  if (step_ >= config_.dense_warmup) {
    std::vector<double> targets;
    for (const Group& group : groups_) targets.push_back(target(group));
    // A step without any sample of a modality says nothing of its gates.
    const at::Tensor seen_M = torch::mv(weight_MG_, seen_G).gt(0).to(torch::kDouble);
    const at::Tensor target_M =
        torch::tensor(targets, torch::kDouble).to(seen_M.device(), /*non_blocking=*/true);
    error_M_ = (densities(weight_MG_, active_G, seen_G) - target_M) * seen_M;
    multiplier_M_ = multiplier_M_ + config_.rate * error_M_;
  }
  return torch::cat({density_E.slice(0, 0, 1), multiplier_M_.mean().unsqueeze(0), density_E.slice(0, 1),
                     active_G / tokens_G, count_GC.select(1, GateCounts::kEntropy) / tokens_G})
      .to(torch::kFloat);
}

std::vector<std::string> GateController::figure_names() const {
  if (gates_.empty()) return {};
  std::vector<std::string> names = {"density", "gate_multiplier"};
  for (const std::string& encoder : encoders_) names.push_back("density/" + encoder);
  for (const char* kind : {"density/", "gate_entropy/"})
    for (const auto& [name, gate] : gates_) names.push_back(kind + name);
  return names;
}

TensorMap GateController::state() const {
  if (gates_.empty()) return {};
  return {{"multiplier", multiplier_M_}, {"error", error_M_}};
}

void GateController::load_state(const TensorMap& state) {
  if (gates_.empty()) return;
  for (auto& [name, value] : {std::pair{"multiplier", &multiplier_M_}, std::pair{"error", &error_M_}}) {
    const auto found = state.find(name);
    if (found == state.end() || found->second.sizes() != value->sizes())
      fail(ErrorKind::kCheckpoint, "the training state has no {} of gates like these", name);
    *value = found->second.to(value->device(), torch::kDouble).clone();
  }
}

}  // namespace fathom
