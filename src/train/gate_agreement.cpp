#include "train/gate_agreement.h"

#include <torch/torch.h>

#include <utility>
#include <vector>

#include "base/error.h"
#include "nn/token_gate.h"

namespace fathom {

std::optional<double> GateAgreement::measure(LanguageModel model, const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  GateTrace trace;
  model->eval();
  model->hidden(tokens_1T_.to(options.device), {}, options.context(&trace));
  for (auto& [layer, active_1T] : trace.active_BT) active_1T = active_1T.to(at::kCPU);
  const GateTrace before = std::exchange(former_, trace);
  if (before.active_BT.empty()) return std::nullopt;
  return agreement(trace, before);
}

TensorMap GateAgreement::state() const {
  if (former_.active_BT.empty()) return {};
  std::vector<int64_t> layers;
  std::vector<at::Tensor> active;
  for (const auto& [layer, active_1T] : former_.active_BT) {
    layers.push_back(layer);
    active.push_back(active_1T);
  }
  return {{"gated_tokens", tokens_1T_},
          {"gated_layers", torch::tensor(layers, torch::kLong)},
          {"gate_decisions", torch::stack(active)}};
}

void GateAgreement::load_state(const TensorMap& state) {
  former_ = {};
  const auto tokens = state.find("gated_tokens"), layers = state.find("gated_layers"),
             decisions = state.find("gate_decisions");
  if (tokens == state.end()) return;
  if (layers == state.end() || decisions == state.end() || layers->second.dim() != 1 ||
      decisions->second.dim() != 3 || decisions->second.size(0) != layers->second.numel())
    fail(ErrorKind::kCheckpoint, "the training state's decisions of gates are incomplete");
  if (!torch::equal(tokens->second.to(at::kCPU, at::kLong), tokens_1T_)) return;
  for (int64_t i = 0; i < layers->second.numel(); ++i)
    former_.active_BT[layers->second[i].item<int64_t>()] =
        decisions->second[i].to(at::kCPU, at::kBool).clone();
}

}  // namespace fathom
