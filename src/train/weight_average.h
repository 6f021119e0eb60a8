// Exponential moving average of weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/tensor_file.h"
#include "train/optimizer.h"

namespace fathom {

/// Keeps ā ← d·ā + (1−d)·w beside the weights w, with d = min(decay, (1+t)/(10+t)) at update t, so that early
/// weights are forgotten fast. Decay 0 keeps nothing and costs nothing. An optimizer that it joins moves the
/// averages of what it trains in the pass that changes the weights; a step that changes none moves none,
/// though t goes on.
class WeightAverage {
 public:
  WeightAverage(const NamedParameters& parameters, double decay);

  bool active() const { return !average_.empty(); }
  /// Leaves the averages of what `optimizer` trains to its steps.
  void join(AdamW& optimizer);
  /// Moves what no optimizer moves; those that do follow with their next step.
  void update();

  TensorMap state() const;  ///< by parameter name, and "updates"; views of the living tensors
  /// Errors (kCheckpoint): an average that is absent or of another shape.
  void load_state(const TensorMap& state);

  /// Exchanges weights and average; a second call takes it back.
  void swap();

 private:
  std::vector<std::string> names_;
  std::vector<at::Tensor> weights_;
  std::vector<at::Tensor> average_;
  std::vector<at::Tensor> own_weights_, own_average_;  ///< those that no optimizer moves
  at::Tensor weight_;                                  ///< float64 on the device: 1 − d of the last update
  double decay_;
  int64_t num_updates_ = 0;
};

/// The model has its averaged weights as long as this lives.
class AveragedWeights {
 public:
  explicit AveragedWeights(WeightAverage& average) : average_(average) { average_.swap(); }
  ~AveragedWeights() { average_.swap(); }
  AveragedWeights(const AveragedWeights&) = delete;
  AveragedWeights& operator=(const AveragedWeights&) = delete;

 private:
  WeightAverage& average_;
};

}  // namespace fathom
