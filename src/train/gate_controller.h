// Holds the share of tokens that gates let through at its target while a model learns.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "distributed/collective.h"
#include "nn/token_gate.h"
#include "tensor/tensor_file.h"

namespace fathom {

struct GateTrainingConfig {
  double explore = 0.05;
  int64_t dense_warmup = 100;
  double rate = 0.02;
  double damping = 1.0;
  bool score_values = false;

  void fields(Fields& f);
};

/// Dual ascent: the density's weight in the objective rises while it is above its target and falls while it
/// is below, so that nobody has to guess a coefficient; a term in the error itself damps the swing. Each
/// encoder is held at its own density by a multiplier of its own, or one a gate where layers have densities
/// of their own. All of it stays on the device, and every rank computes the same. One thread.
class GateController {
 public:
  /// `gates` may be empty: then nothing happens.
  GateController(std::vector<NamedGate> gates, const GateTrainingConfig& config);

  bool has_gates() const { return !gates_.empty(); }
  const GateTrainingConfig& config() const { return config_; }
  /// Before step `step` (from 0): dense or not, counts at zero.
  void begin(int64_t step);
  /// Whether the step that has begun computes everything.
  bool is_dense() const { return has_gates() && step_ < config_.dense_warmup; }
  /// Before an evaluation: what is saved chooses, whatever training does at this step.
  void let_choose();
  /// Whether the target has reached the density after so many steps: earlier figures are of a denser model.
  bool is_settled(int64_t steps) const { return !has_gates() || steps >= 2 * config_.dense_warmup; }
  /// After its last backward pass: what was counted on all ranks moves the multipliers. The figures that
  /// `figure_names` names, float32 on the device.
  at::Tensor finish(Collective& collective);
  /// "density" (activated ÷ all token-parameters of what is gated), "gate_multiplier" (mean), of each encoder
  /// of a model with several parts "density/ENCODER", and of each gate "density/NAME" and "gate_entropy/NAME"
  /// (bits a token).
  std::vector<std::string> figure_names() const;

  TensorMap state() const;
  void load_state(const TensorMap& state);

 private:
  /// Gates that share a multiplier.
  struct Group {
    std::vector<size_t> gates;
    double density = 1;
    bool learns = false;  ///< only a gradient can be weighed
  };
  double target(const Group& group) const;
  void weigh_gates();
  void set_multipliers();

  std::vector<NamedGate> gates_;
  GateTrainingConfig config_;
  std::vector<Group> groups_;
  std::vector<std::string> encoders_;  ///< names of those of a model with several parts
  at::Tensor weight_MG_;     ///< float64: token-parameters of a decision, 0 outside of the multiplier's group
  at::Tensor weight_EG_;     ///< the same of all gates together, and of each encoder
  at::Tensor share_MG_;      ///< of the group's work over a row as the model is made for it
  at::Tensor multiplier_M_;  ///< of each group
  at::Tensor error_M_;       ///< of the last step
  at::Tensor weighed_MG_;    ///< what gates read: the same memory at every step, since steps are recorded
  int64_t step_ = 0;
};

}  // namespace fathom
