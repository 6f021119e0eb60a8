// The learning rate's curve over a run.
#pragma once

#include <cstdint>

#include "base/config.h"

namespace fathom {

enum class ScheduleShape { kCosine, kLinear, kConstant, kWarmupStableDecay };

struct ScheduleConfig {
  ScheduleShape shape = ScheduleShape::kCosine;
  int64_t warmup_steps = -1;
  double decay_share = 0.2;
  double final_share = 0.0;

  void fields(Fields& f);
};

/// What the peak learning rate is multiplied with at `step` (from 0) of `total_steps`: rises linearly over
/// the warm-up to 1, then falls to `final_share` at `total_steps`; warmup–stable–decay stays at 1 until the
/// last `decay_share` of the run (Hu et al., "MiniCPM", 2024, with a linear fall).
double learning_rate_scale(const ScheduleConfig& config, int64_t step, int64_t total_steps);

/// Steps of warm-up that a run of `total_steps` takes.
int64_t warmup_length(const ScheduleConfig& config, int64_t total_steps);

}  // namespace fathom
