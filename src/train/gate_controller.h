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
/// is below, so that nobody has to guess a coefficient; a term in the error itself damps the swing. One
/// multiplier for each encoder, or one a gate where layers have densities of their own. All of it stays on
/// the device, and every rank computes the same. One thread.
class GateController {
 public:
  /// `gates` may be empty: then nothing happens.
  GateController(std::vector<NamedGate> gates, const GateTrainingConfig& config);

  bool has_gates() const { return !gates_.empty(); }
  const GateTrainingConfig& config() const { return config_; }
  /// Before step `step` (from 0): dense or not, counts at zero.
  void begin(int64_t step);
  /// Before an evaluation: what is saved chooses, whatever training does at this step.
  void let_choose();
  /// Whether the target has reached the density after so many steps: earlier figures are of a denser model.
  bool is_settled(int64_t steps) const { return !has_gates() || steps >= 2 * config_.dense_warmup; }
  /// After its last backward pass: what was counted on all ranks moves the multipliers. The figures that
  /// `figure_names` names, float32 on the device.
  at::Tensor finish(Collective& collective);
  /// "density" (activated ÷ all token-parameters of what is gated), "gate_multiplier" (mean), and of each
  /// gate "density/NAME" and "gate_entropy/NAME" (bits a token).
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
  void set_multipliers();
  at::Tensor all_density(const at::Tensor& density_G) const;

  std::vector<NamedGate> gates_;
  GateTrainingConfig config_;
  std::vector<Group> groups_;
  at::Tensor share_MG_;      ///< float64: each gate's part of its group's parameters, 0 outside of it
  at::Tensor multiplier_M_;  ///< float64, of each group
  at::Tensor error_M_;       ///< of the last step
  int64_t step_ = 0;
};

}  // namespace fathom
