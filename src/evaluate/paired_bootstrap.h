// How sure the difference of two runs on the same data is: paired bootstrap over clusters of samples. Source:
// Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 13.3 (percentile interval).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
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

/// What one run made of each sample, and the file that says so, for messages.
struct RunResults {
  std::vector<SampleResult> results;
  std::string path = "a run";

  RunResults(std::vector<SampleResult> own) : results(std::move(own)) {}
  RunResults(std::vector<SampleResult> own, std::string from)
      : results(std::move(own)), path(std::move(from)) {}
};

/// One arm: the results of one run, or of several (seeds), of which each sample then counts with its mean.
using Arm = std::vector<RunResults>;

/// Whole clusters are drawn with replacement, the same ones for both arms. A pure function of its arguments.
/// Errors (kData): runs that were not asked the same, or whose samples are grouped otherwise; both are named.
PairedReport compare_runs(const Arm& first, const Arm& second, const BootstrapOptions& options = {});

}  // namespace fathom
