// Angles of rotary position embedding. Source: Su et al., "RoFormer", 2021.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace fathom {

/// Cosines and sines for a run of positions, float32 [T, E/2].
struct RopeAngles {
  at::Tensor cos_TF;
  at::Tensor sin_TF;
};

/// A table of angles for positions [0, max_positions), made at first use on the device that asks. Used by one
/// thread at a time.
class Rope {
 public:
  Rope() = default;
  Rope(int64_t max_positions, int64_t head_dim, double theta)
      : max_positions_(max_positions), head_dim_(head_dim), theta_(theta) {}

  /// Errors (kRequest): positions beyond the table.
  RopeAngles angles(int64_t start, int64_t count, at::Device device);

 private:
  int64_t max_positions_ = 0;
  int64_t head_dim_ = 0;
  double theta_ = 0;
  RopeAngles table_;
};

}  // namespace fathom
