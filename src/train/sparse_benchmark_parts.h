// What a benchmark of gates is made of: rounds of times, drawn decisions, and training steps as a trainer's
// are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "distributed/collective.h"
#include "distributed/data_parallel.h"
#include "kernels/weight_copies.h"
#include "tensor/device_runtime.h"
#include "train/optimizer.h"
#include "train/sparse_benchmark.h"
#include "train/step_recorder.h"
#include "train/task/language.h"

namespace fathom::sparse_benchmark {

/// Milliseconds of each round.
struct Rounds {
  std::vector<double> dense, gated, rest;

  void add(double dense_ms, double gated_ms, double rest_ms);
  SparseTiming medians(double share) const;
};

/// Of `work`, until the device has done it.
double milliseconds(DeviceRuntime& runtime, const std::function<void()>& work);

/// How many of so many places `share` are.
int64_t drawn_of(int64_t columns, double share);
/// bool [rows, columns] with the same number of true columns in every row.
at::Tensor drawn_places(int64_t rows, int64_t columns, double share, at::Device device);

/// A model and what its steps take beside it, as the trainer has them: copies of weights in 16 bits, and
/// gradients that are written where they are to lie.
struct Learner {
  Learner(LanguageModel model, MicroBatch batch, Collective& group, int64_t tokens);

  void learn(std::span<const MicroBatch> micro_batches);

  Collective& collective;
  LanguageTask task;
  GradientReducer reducer;
  std::vector<MicroBatch> inputs;
  std::optional<kernels::WeightCopies> copies;
};

/// Steps of one kind, recorded where the device has graphs, as the trainer's are.
class TimedStep {
 public:
  /// `optimizer` updates what it has, whatever learns.
  TimedStep(Learner& learner, AdamW& optimizer, DeviceRuntime& runtime)
      : learner_(learner), optimizer_(optimizer), runtime_(runtime), recorder_(runtime, true) {}

  double milliseconds_of_one();

 private:
  Learner& learner_;
  AdamW& optimizer_;
  DeviceRuntime& runtime_;
  StepRecorder recorder_;
  bool waited_ = false;  ///< a gate has asked the device for a count
};

}  // namespace fathom::sparse_benchmark
