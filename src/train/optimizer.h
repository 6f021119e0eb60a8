// AdamW over groups of parameters, and clipping, without a wait for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/config.h"
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

/// Global 2-norm of `gradients` as a scalar on their device, in float32 at least.
at::Tensor gradient_norm(const std::vector<at::Tensor>& gradients);
/// Multiplies all with min(1, max_norm ÷ norm); 0 leaves them as they are.
void clip_gradients(const std::vector<at::Tensor>& gradients, const at::Tensor& norm, double max_norm);

/// AdamW with decoupled decay (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019):
/// m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², w ← w − ηλw − η·m̂ ÷ (√v̂ + ε). One fused kernel call a group.
class AdamW {
 public:
  AdamW(std::vector<ParameterGroup> groups, const OptimizerConfig& config);

  /// Of the updates to come; each group takes it times its scale.
  void set_learning_rate(double learning_rate);
  /// One update from the parameters' gradients. Where `skip` (float32 scalar on the device) is 1, nothing
  /// changes. What it launches on the device does not depend on the learning rate. REQUIRES a gradient on
  /// every parameter.
  void step(const at::Tensor& skip = {});

  /// Moments by parameter name ("first.NAME", "second.NAME") and "step"; views of the living tensors.
  TensorMap state() const;
  /// Errors (kCheckpoint): a moment that is absent or of another shape.
  void load_state(const TensorMap& state);

 private:
  struct Group {
    double learning_rate_scale;
    double weight_decay;
    at::Tensor learning_rate;  ///< scalar on the device
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters, first, second, steps;
  };
  std::vector<Group> groups_;
  at::Tensor step_;  ///< float32 on the device, shared by all parameters
  double beta1_, beta2_, epsilon_;
};

}  // namespace fathom
