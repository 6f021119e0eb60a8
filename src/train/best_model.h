// Which evaluation was best, and whether to go on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/json.h"
#include "train/task.h"
#include "train/trainer_config.h"

namespace fathom {

/// Errors (kConfig): `figures` lack what the recipe names (they are listed).
void require_metric(const std::string& metric, const Metrics& figures);

/// Judges evaluations by one metric. Plain value; its state is part of the checkpoint.
class BestModel {
 public:
  BestModel(const EvaluationConfig& config, std::string default_metric);

  /// Whether these figures are the best so far; one that is not finite never is. Errors (kConfig): the
  /// metric is not among them (they are listed).
  bool judge(const Metrics& metrics, int64_t step);
  /// `patience` evaluations have brought nothing.
  bool should_stop() const;

  const std::string& metric() const { return metric_; }
  std::optional<double> value() const { return value_; }
  int64_t step() const { return step_; }

  Json state() const;
  void load_state(const Json& state);

 private:
  EvaluationConfig config_;
  std::string metric_;
  std::optional<double> value_;
  int64_t step_ = 0;
  int64_t num_without_improvement_ = 0;
};

}  // namespace fathom
