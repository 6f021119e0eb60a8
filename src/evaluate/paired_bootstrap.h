// How sure the difference of two runs on the same data is: paired bootstrap over clusters of samples. Source:
// Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 13.3 (percentile interval).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "evaluate/per_sample.h"

namespace fathom {

struct BootstrapOptions {
  int64_t resamples = 10000;
  int64_t seed = 0;
};

/// One figure of two arms, in percent: the means over their runs, and the 95 % interval of the first less the
/// second.
struct PairedDifference {
  std::string metric;  ///< "accuracy", "t2i_r1", …; of a group "accuracy/unseen=true"
  int64_t count = 0;   ///< samples
  double first = 0;
  double second = 0;
  double low = 0;
  double high = 0;
  double difference() const { return first - second; }
};

struct PairedReport {
  int64_t clusters = 0;
  BootstrapOptions options;
  std::vector<PairedDifference> differences;
  /// {"clusters", "resamples", "seed", "metrics": {NAME: {"first", "second", "difference", "low", "high",
  /// "count"}}}
  Json to_json() const;
};

/// One arm: the results of one run, or of several (seeds), of which each sample then counts with its mean.
using Arm = std::vector<std::vector<SampleResult>>;

/// Whole clusters are drawn with replacement, the same ones for both arms. A pure function of its arguments.
/// Errors (kData): runs that were not asked the same.
PairedReport compare_runs(const Arm& first, const Arm& second, const BootstrapOptions& options = {});

}  // namespace fathom
