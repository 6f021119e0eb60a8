// Several sources as one, each with its share of the samples.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/config.h"
#include "base/random.h"
#include "batch/sample_source.h"

namespace fathom {

enum class MixUnit {
  kSample,  ///< every batch holds samples of all sources, as they fall
  kBatch,   ///< every batch is of one source: for sources of different modalities or shapes
};

struct MixingConfig {
  MixUnit unit = MixUnit::kSample;
  int64_t epoch_samples = 0;  ///< 0: as many as the sources have together
  void fields(Fields& f);
};

/// One source and its weight among others; weights are shares of samples (or batches) once divided by their
/// sum.
struct MixPart {
  std::shared_ptr<const SampleSource> source;
  double weight = 1.0;
};

/// An epoch of the mixture has a fixed number of samples of each part, in an order that follows from (seed,
/// epoch); each part goes through its own samples in its own shuffled epochs, and goes on in the next epoch
/// of the mixture where it stopped. So which sample is where is a pure function of (seed, epoch, index), with
/// no state to resume but the sampler's. Takes a sampler that does not shuffle.
class MixedSource : public SampleSource {
 public:
  struct Setup {
    std::vector<MixPart> parts;
    MixingConfig config;
    int64_t batch_size = 1;  ///< of the sampler
    int64_t seed = 0;
  };
  /// Errors (kConfig): a part so light that an epoch has nothing of it; an epoch of less than one batch.
  explicit MixedSource(Setup setup);

  int64_t size() const override { return size_; }
  /// `Sample::index` is the place in all parts one behind the other, so that equal indices mean the same
  /// sample.
  Sample load(int64_t index, int64_t epoch) const override;
  /// Of the same part.
  int64_t replacement(int64_t index, int64_t epoch, Random& random) const override;
  DataReport* report() const override { return &report_; }

  /// The part that a sample of an epoch is of.
  int64_t part_of(int64_t index, int64_t epoch) const;
  /// Samples of each part in an epoch.
  const std::vector<int64_t>& quotas() const { return quotas_; }

 private:
  struct Draw {
    int64_t part;
    int64_t index;  ///< within the part
    int64_t epoch;  ///< of the part
  };
  using Plan = std::vector<Draw>;

  std::shared_ptr<const Plan> plan_of(int64_t epoch) const;
  Plan make_plan(int64_t epoch) const;

  Setup setup_;
  std::vector<int64_t> quotas_;
  std::vector<int64_t> starts_;  ///< samples of all parts before each
  int64_t size_ = 0;
  mutable DataReport report_;
  mutable std::mutex mutex_;
  mutable std::map<int64_t, std::shared_ptr<const Plan>> plans_;  ///< of the epochs asked for last
};

}  // namespace fathom
