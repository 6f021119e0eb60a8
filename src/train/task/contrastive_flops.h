// What a contrastive step computes for a sample, for figures.
#pragma once

#include <cstdint>
#include <vector>

#include "models/dual_tower/config.h"
#include "train/task/contrastive_config.h"

namespace fathom {

/// What a sample brings, at most.
struct ContrastiveSample {
  int64_t views = 1;
  int64_t captions = 1;
  int64_t tokens = 0;  ///< of a caption
  int64_t frames = 0;  ///< of a sound
};

/// Floating-point operations of a training step over one sample: towers, projections, the heads of
/// training alone that `config` asks for, and what teachers compute. Without the scores of pairs.
double contrastive_flops(const DualTowerConfig& model, const ContrastiveConfig& config,
                         const ContrastiveSample& sample, const std::vector<DualTowerConfig>& teachers);

}  // namespace fathom
