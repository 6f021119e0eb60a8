// The training loop. It knows tasks, batches and ranks, and no modality.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "batch/loader.h"
#include "distributed/collective.h"
#include "distributed/data_parallel.h"
#include "kernels/weight_copies.h"
#include "tensor/determinism.h"
#include "tensor/device_runtime.h"
#include "train/best_model.h"
#include "train/checkpoint.h"
#include "train/gate_controller.h"
#include "train/loss_scale.h"
#include "train/monitor.h"
#include "train/optimizer.h"
#include "train/run_folder.h"
#include "train/step_recorder.h"
#include "train/stop_signal.h"
#include "train/task.h"
#include "train/trainer_config.h"
#include "train/weight_average.h"

namespace fathom {

enum class StopReason { kFinished, kEarlyStopping, kTimeUp, kRequested };
/// "finished", "early_stopping", "max_seconds" or "requested" (by a signal).
const char* stop_reason_name(StopReason reason);

/// How a run ended.
struct TrainingSummary {
  int64_t steps = 0;
  StopReason reason = StopReason::kFinished;
  double last_loss = 0;
  double seconds = 0;
  int64_t replaced = 0;         ///< samples of this process that could not be read (OnError::kSkip)
  Metrics metrics;              ///< of the last evaluation, former parts of the run included
  int64_t evaluated_step = -1;  ///< after which it was; −1 without one
  Json best = Json::object();   ///< {"metric", "value", "step"}, empty when nothing was evaluated
  Json to_json() const;
};

/// What a trainer works with; all must outlive it.
struct TrainerParts {
  Task& task;
  Loader& loader;
  Collective& collective;
  DeviceRuntime& runtime;
};

/// Runs on every rank alike; rank 0 alone writes to the run folder. One thread.
class Trainer {
 public:
  /// Makes every rank's weights those of rank 0. Errors (kConfig): patterns that fit no parameter.
  Trainer(const TrainerConfig& config, const TrainerParts& parts);

  /// Goes on from the newest training state of the run folder, if there is one. Errors: a state of another
  /// model (kCheckpoint), a recipe that changes what a run may not change (kConfig).
  bool resume();
  /// Trains to the end, or until early stopping, `max_seconds`, SIGINT or SIGTERM; evaluates (but for the
  /// signals) and saves. Errors: kData, of the loader or an evaluation: the state before the step, or before
  /// the evaluation, is saved first where rank 0 fails so (another rank's failure reaches rank 0 within a
  /// step, whose state is whole no longer).
  TrainingSummary run();

  int64_t step() const { return step_; }  ///< steps done
  int64_t total_steps() const { return total_steps_; }

 private:
  void train_step();
  Batch next_batch();
  void keep_copies();
  int64_t kind_of_step() const;
  std::vector<MicroBatch> prepare(const Batch& batch, int64_t global_samples);
  std::vector<at::Tensor> apply_gradients();
  void report(const std::vector<at::Tensor>& figures, double learning_rate, int64_t samples);
  void keep_what_is_due();
  void keep_model();
  void evaluate();
  void judge();
  void save_state();
  void save_before_failing();
  void save_model(const std::string& folder);
  void finish(StopReason reason);
  Json model_record() const;
  bool is_over() const;
  StopReason stop_reason();
  bool is_main() const { return parts_.collective.rank() == 0; }
  void apart(const std::function<void()>& work);

  TrainingState state() const;
  void load_state(const TrainingState& state);
  TensorMap weights() const;
  void start_monitor();

  TrainerConfig config_;
  Determinism determinism_;
  TrainerParts parts_;
  RunFolder folder_;
  NamedParameters parameters_;
  std::unique_ptr<GradientReducer> reducer_;
  std::unique_ptr<AdamW> optimizer_;
  std::optional<kernels::WeightCopies> copies_;  ///< where products take weights in 16 bits
  WeightAverage average_;
  BestModel best_;
  StopSignal stop_signal_;
  std::unique_ptr<Monitor> monitor_;
  int64_t step_ = 0;
  int64_t total_steps_ = 0;
  GateController gates_;
  kernels::Products products_;
  kernels::Fp8Weights fp8_weights_;
  std::optional<kernels::Fp8Products> fp8_;
  at::Tensor saturated_;                 ///< of either; undefined without them
  std::optional<LossScale> loss_scale_;  ///< where products have a type of their own
  at::Tensor progress_;                  ///< StepContext::progress: a recorded step reads it where it lies
  StepRecorder recorder_;
  bool waited_ = false;  ///< a gate has asked the device for a count
  int64_t saved_step_ = -1;
  int64_t evaluated_step_ = -1;
  bool stops_early_ = false;
  bool time_is_up_ = false;
  Metrics metrics_;  ///< of the last evaluation, after `evaluated_step_`
};

}  // namespace fathom
