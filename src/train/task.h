// A model with its objective: all that the trainer knows of either.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "batch/batch.h"
#include "batch/collate.h"
#include "distributed/collective.h"
#include "nn/forward_context.h"
#include "nn/token_gate.h"
#include "tensor/tensor_file.h"
#include "train/optimizer.h"

namespace fathom {

/// A part of this rank's batch on the device, and what the model's forward is told with it (keys of its
/// samples).
struct MicroBatch {
  Batch batch;
  ForwardContext forward;
};

/// What a task may know of the step it takes part in.
struct StepContext {
  int64_t step = 0;            ///< from 0
  at::Tensor progress;         ///< share of the run's steps before this one: a float64 scalar on the device
  int64_t global_samples = 0;  ///< of this step, over all ranks
  Collective& collective;
  /// To be called once, before the step's last backward pass: gradients may then leave for other ranks.
  std::function<void()> expect_last_backward;
};

/// What `count` (an integer scalar) finds in each micro-batch, summed over the step and all ranks: a scalar
/// of the type and on the device of `like`.
at::Tensor count_over_step(std::span<const MicroBatch> micro_batches, const StepContext& step,
                           const at::Tensor& like, const std::function<at::Tensor(const Batch&)>& count);

/// A figure of quality, by which "best" and early stopping are judged.
struct Metric {
  double value = 0;
  bool higher_is_better = true;
};
using Metrics = std::map<std::string, Metric>;
/// {NAME: value}, for whoever reads of them.
Json figures_json(const Metrics& metrics);
/// All of them, for the training state; a value that is no finite number comes back as NaN.
Json metrics_to_json(const Metrics& metrics);
Metrics metrics_from_json(const Json& json);

/// Owned by whoever assembles a run; used by the trainer's thread only. Every rank calls the same methods in
/// the same order, `evaluate` and `save_model` apart, which run on rank 0 alone.
class Task {
 public:
  virtual ~Task() = default;

  /// Every parameter, frozen ones included, by its full name.
  virtual NamedParameters parameters() const = 0;

  /// Gates of the model's layers (nn/token_gate.h), which the trainer controls.
  virtual std::vector<NamedGate> gates() const { return {}; }

  /// This micro-batch's share of the objective, a scalar: the sum over its samples ÷ the count over all
  /// samples of the step and all ranks, so that shares add up to the mean over the global batch.
  virtual at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) = 0;

  /// Adds the gradients of the whole step to the parameters, times the loss scale of its contexts where there
  /// is one (ForwardContext::scaled), and returns this rank's share of the objective, unscaled and detached.
  /// By default `loss` and backward for one micro-batch after the other; an objective that is no sum over
  /// micro-batches (InfoNCE) has its own.
  virtual at::Tensor forward_backward(std::span<const MicroBatch> micro_batches, const StepContext& step);

  virtual void before_step(std::span<const MicroBatch>, const StepContext&) {}
  virtual void after_step(const StepContext&) {}

  /// Whether every step launches the same operations on the device for tensors of the same shapes, without
  /// waiting for it, so that a step may be recorded once and replayed; `before_step` and `forward_backward`
  /// are not called then.
  virtual bool launches_alike() const { return false; }

  /// What the objective itself remembers between steps (banks, multipliers, teachers).
  virtual TensorMap state() const { return {}; }
  virtual void load_state(const TensorMap&) {}

  /// Quality on held-out data with the weights as they are; empty when there is none to evaluate on.
  virtual Metrics evaluate() = 0;
  /// The one that decides unless the recipe names another.
  virtual std::string default_metric() const = 0;

  /// Writes a whole model folder, replacing an older one at once. `record` is kept in it.
  virtual void save_model(const std::string& folder, const Json& record) = 0;

  /// How images of this model's batches are normalised.
  virtual PixelStatistics pixels() const { return {}; }
  /// Floating-point operations of a training step (forward and backward) per sample.
  virtual double flops_per_sample() const = 0;
  /// Tokens of a sample, for throughput; 0 when tokens are not what is counted.
  virtual int64_t tokens_per_sample() const { return 0; }
  /// The same of questions: their mean.
  virtual double questions_per_sample() const { return 0; }
};

}  // namespace fathom
