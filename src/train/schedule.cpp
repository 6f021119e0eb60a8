#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace fathom {

void ScheduleConfig::fields(Fields& f) {
  f.choice("shape", shape, "curve after warm-up",
           {{"cosine", ScheduleShape::kCosine},
            {"linear", ScheduleShape::kLinear},
            {"constant", ScheduleShape::kConstant},
            {"warmup_stable_decay", ScheduleShape::kWarmupStableDecay}});
  f("warmup_steps", warmup_steps,
    "steps of linear rise; -1 takes 1,000, or a tenth of the run if that is fewer", {.low = -1});
  f("decay_share", decay_share, "last share of the run in which warmup_stable_decay falls",
    {.low = 0, .high = 1});
  f("final_share", final_share, "learning rate at the end, as a share of the peak", {.low = 0, .high = 1});
}

int64_t warmup_length(const ScheduleConfig& config, int64_t total_steps) {
  return config.warmup_steps >= 0 ? config.warmup_steps : std::min<int64_t>(1000, total_steps / 10);
}

namespace {

/// How far the fall has come, in [0, 1].
double decay_progress(const ScheduleConfig& config, int64_t step, int64_t total_steps) {
  double start = static_cast<double>(warmup_length(config, total_steps));
  const auto end = static_cast<double>(total_steps);
  if (config.shape == ScheduleShape::kWarmupStableDecay)
    start = std::max(start, end * (1 - config.decay_share));
  return end > start ? std::clamp((static_cast<double>(step) - start) / (end - start), 0.0, 1.0) : 0.0;
}

}  // namespace

double learning_rate_scale(const ScheduleConfig& config, int64_t step, int64_t total_steps) {
  const int64_t warmup = warmup_length(config, total_steps);
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (config.shape == ScheduleShape::kConstant) return 1.0;
  const double progress = decay_progress(config, step, total_steps);
  const double height = config.shape == ScheduleShape::kCosine
                            ? 0.5 * (1 + std::cos(std::numbers::pi * progress))
                            : 1 - progress;
  return config.final_share + (1 - config.final_share) * height;
}

}  // namespace fathom
