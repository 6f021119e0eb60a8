// Loads batches ahead on background threads, in an order that does not depend on them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/config.h"
#include "batch/batch.h"
#include "batch/collate.h"
#include "batch/sample_source.h"
#include "data/sampler.h"

namespace fathom {

struct LoaderConfig {
  int64_t workers = 2;
  int64_t prefetch = 4;
  OnError on_error = OnError::kStop;
  std::string table = {};  ///< of a recipe that holds this ("data.loader"), for messages; no recipe's key
  void fields(Fields& f);
};

/// Everything a loader is made of. `num_epochs` 0 is endless.
struct LoaderSetup {
  std::shared_ptr<const SampleSource> source;
  SamplerConfig sampler;
  LoaderConfig loader;
  CollateConfig collate;
  OrderHook order;
  int64_t rank = 0;
  int64_t num_ranks = 1;
  int64_t num_epochs = 0;
};

/// Delivers this rank's slice of every global batch. `loader.workers` threads load single samples, at most
/// `loader.prefetch` batches ahead; the batches are bit-equal for any number of workers (0: on the caller's
/// thread). Used by one thread at a time; the destructor stops and joins the workers.
class Loader {
 public:
  explicit Loader(LoaderSetup setup);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The next batch, or nothing after the last epoch. Errors of workers surface here, in order, with the
  /// file's name, and with the switch that would have helped where `loader.table` has it. Under
  /// OnError::kSkip a sample that fails with kData is named in a warning (the first twenty), counted, also in
  /// the source's report, and replaced by another, chosen by (seed, epoch, index) alone.
  std::optional<Batch> next();

  /// The place after the batches delivered so far; a loader resumed there delivers what this one would.
  SamplerState state() const;
  void resume(SamplerState state);

  int64_t batches_per_epoch() const;
  int64_t num_samples() const;
  /// Seconds that `next` has waited for data since construction.
  double wait_seconds() const;
  /// Different samples of this process that could not be read and were replaced, since construction.
  int64_t num_replaced() const;

 private:
  class Pipeline;
  std::unique_ptr<Pipeline> pipeline_;
};

/// A loader that goes through `source` once, in order, last batch included: for evaluation.
LoaderSetup one_pass(std::shared_ptr<const SampleSource> source, int64_t batch_size, int64_t workers = 2);

}  // namespace fathom
