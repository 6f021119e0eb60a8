// AdamW over all parameters, with clipping, without a wait for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/config.h"
#include "kernels/adamw_step.h"
#include "kernels/weight_copies.h"
#include "tensor/tensor_file.h"

namespace fathom {

using NamedParameters = std::vector<std::pair<std::string, at::Tensor>>;

/// What a pattern of parameter names ("vision.*"; * any characters, ? one) changes. The last match counts.
struct ParameterRule {
  std::string pattern;
  double learning_rate_scale = 1.0;
  double weight_decay = -1.0;

  void fields(Fields& f);
};

struct OptimizerConfig {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.98;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;
  std::vector<std::string> freeze;
  int64_t freeze_layers = 0;
  double layer_decay = 1.0;
  std::vector<ParameterRule> rules;

  void fields(Fields& f);
};

/// Parameters that share a learning rate and a decay.
struct ParameterGroup {
  double learning_rate_scale = 1.0;
  double weight_decay = 0.0;
  NamedParameters parameters;
};

/// Takes the gradient from every parameter that a `freeze` pattern matches. Errors (kConfig): a pattern that
/// matches no parameter (with the nearest name), patterns that leave nothing to train.
void freeze_parameters(const NamedParameters& parameters, const std::vector<std::string>& patterns);

/// Takes the gradient from the lowest `count` layers of every tower and all that feeds them
/// (parameter_depth.h); where an embedding is the output head too, from the head. Errors (kConfig): no tower
/// has so many layers; nothing is left to train.
void freeze_lower_layers(const NamedParameters& parameters, int64_t count);

/// Trainable parameters by learning rate and decay. With `layer_decay` the learning rate of layer l out of L
/// is that of the top times layer_decay^(L + 1 − l); what feeds the first layer counts as layer 0 (Clark et
/// al., "ELECTRA", ICLR 2020). A rule's scale comes on top of that. Parameters of at most one dimension
/// (norms, biases, the temperature) and tables of biases are not decayed, unless a rule says so. Errors
/// (kConfig): a rule that matches no parameter.
std::vector<ParameterGroup> group_parameters(const NamedParameters& parameters,
                                             const OptimizerConfig& config);

/// How a step takes its gradients: scalars on the device, each of which may be undefined.
struct GradientTerms {
  at::Tensor norm;     ///< clips them to `clip_norm`; where it is not finite nothing changes
  at::Tensor divisor;  ///< what they are divided by first (a loss scale); `norm` is of what that leaves
  at::Tensor skip;     ///< where it is not 0 nothing changes
};

/// AdamW by `kernels::adamw_step`: one pass over the gradients for their norm, one over all for the update.
class AdamW {
 public:
  AdamW(std::vector<ParameterGroup> groups, const OptimizerConfig& config);

  /// Of the updates to come; each group takes it times its scale.
  void set_learning_rate(double learning_rate);
  /// Each step also moves the averages of parameters by name, by `weight` (float64 scalar on the device) of
  /// the way to the new parameter. Names without a parameter are left out.
  void set_averages(const TensorMap& averages, const at::Tensor& weight);
  /// Each step also writes what `copies`, which must outlive this, keeps of the parameters.
  void set_copies(kernels::WeightCopies& copies) { copies_ = &copies; }
  /// Of what is trained.
  const std::vector<std::string>& names() const { return names_; }

  /// Global 2-norm of the parameters' gradients ÷ divisor (or undefined), a float64 scalar on their device.
  /// REQUIRES a gradient on every parameter, as `step` does.
  at::Tensor gradient_norm(const at::Tensor& divisor = {});
  /// One update from the parameters' gradients, which stay as they are. What it launches on the device does
  /// not depend on the learning rate.
  void step(const GradientTerms& gradients = {});

  /// Moments by parameter name ("first.NAME", "second.NAME") and "step"; views of the living tensors.
  TensorMap state() const;
  /// Errors (kCheckpoint): a moment that is absent or of another shape.
  void load_state(const TensorMap& state);

 private:
  void take_gradients();
  void take_copies();

  std::vector<std::string> names_;
  kernels::AdamWTensors tensors_;
  kernels::AdamWTable table_;
  kernels::AdamWSettings settings_;
  at::Tensor step_;            ///< float32 on the device
  at::Tensor learning_rate_;   ///< float64 on the device, as the next
  at::Tensor average_weight_;  ///< undefined without averages
  kernels::WeightCopies* copies_ = nullptr;
};

}  // namespace fathom
