// What may be set about a run of training, whatever is trained.
#pragma once

#include <cstdint>
#include <string>

#include "base/config.h"
#include "base/json.h"
#include "distributed/data_parallel.h"
#include "train/gate_controller.h"
#include "train/loss_scale.h"
#include "train/optimizer.h"
#include "train/precision.h"
#include "train/schedule.h"

namespace fathom {

struct TrainingConfig {
  int64_t batch_size = 256;
  int64_t micro_batch_size = 0;
  int64_t epochs = 0;
  int64_t max_steps = 0;
  double max_seconds = 0;
  bool checkpoint_blocks = false;
  double average_decay = 0;
  bool record_step = true;
  bool deterministic = false;
  bool weight_copies = true;
  int64_t log_every = 10;

  void fields(Fields& f);
  /// Errors (kConfig): no end (neither epochs nor max_steps), micro-batches larger than the batch.
  void validate() const;
};

/// Steps of a run, whichever of its ends comes first.
int64_t num_steps(const TrainingConfig& config, int64_t batches_per_epoch);

struct CheckpointConfig {
  int64_t every = 500;
  int64_t keep = 3;
  int64_t model_every = 2000;
  int64_t keep_models = 3;

  void fields(Fields& f);
};

struct EvaluationConfig {
  int64_t every = 0;
  bool at_end = true;
  std::string metric;
  int64_t patience = 0;
  double min_improvement = 0;
  int64_t rerank = 100;

  void fields(Fields& f);
};

struct TrainerConfig {
  int64_t seed = 0;
  Precision precision = Precision::kFp32;
  Fp8Config fp8;
  TrainingConfig training;
  OptimizerConfig optimizer;
  LossScaleConfig loss_scale;
  ScheduleConfig schedule;
  CheckpointConfig checkpoint;
  EvaluationConfig evaluation;
  GateTrainingConfig gating;
  DataParallelConfig parallel;
  std::string run_folder;
  Json recipe = Json::object();  ///< the resolved recipe, kept in checkpoints and models
  Json record = Json::object();  ///< what else a model's folder says of itself
};

}  // namespace fathom
