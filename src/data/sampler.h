// Which samples make up which batch: a pure function of (seed, epoch, position), the same for every rank.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace fathom {

/// The place in a run: `position` batches of `epoch` have been taken. It is all that an exact resume needs.
struct SamplerState {
  int64_t epoch = 0;
  int64_t position = 0;
  auto operator<=>(const SamplerState&) const = default;
};

struct SamplerConfig {
  int64_t batch_size = 256;  ///< over all ranks
  int64_t seed = 0;
  bool shuffle = true;
  bool drop_last = true;
};

/// Rewrites an epoch's order: gets the seeded permutation of 0…size−1, returns another (hard negatives side
/// by side, easy samples first). Must be a pure function of its arguments and of state that resuming
/// restores.
using OrderHook = std::function<std::vector<int64_t>(int64_t epoch, std::vector<int64_t> order)>;

/// Holds one epoch's order at a time; not shared between threads.
class Sampler {
 public:
  /// Errors (kConfig): no samples, or `drop_last` with fewer samples than one batch.
  Sampler(int64_t num_samples, const SamplerConfig& config, OrderHook hook = {});

  int64_t num_samples() const { return num_samples_; }
  int64_t batches_per_epoch() const { return batches_per_epoch_; }

  /// Indices of the global batch at `state`; the last one of an epoch may be short without `drop_last`.
  std::span<const int64_t> batch(SamplerState state);
  /// The contiguous part of that batch that `rank` of `num_ranks` takes; parts differ by at most one sample.
  std::span<const int64_t> slice(SamplerState state, int64_t rank, int64_t num_ranks);

  SamplerState next(SamplerState state) const;
  /// The state after `step` batches from the start of the run.
  SamplerState state_at(int64_t step) const { return {step / batches_per_epoch_, step % batches_per_epoch_}; }

 private:
  void prepare(int64_t epoch);

  int64_t num_samples_;
  SamplerConfig config_;
  OrderHook hook_;
  int64_t batches_per_epoch_;
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;
};

}  // namespace fathom
