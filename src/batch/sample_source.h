// Where a loader's samples come from.
#pragma once

#include <cstdint>
#include <string>

#include "base/random.h"
#include "data/readers/data_report.h"
#include "data/sample.h"

namespace fathom {

/// A fixed number of samples, each a pure function of (index, epoch): augmentation, choice of caption and
/// masking are keyed by (seed, epoch, index), never by thread or rank. `load` is called from many threads at
/// once.
class SampleSource {
 public:
  virtual ~SampleSource() = default;

  virtual int64_t size() const = 0;
  /// REQUIRES 0 ≤ index < size(). `Sample::index` is the same for the same sample of any epoch. Errors
  /// (kData) name the file.
  virtual Sample load(int64_t index, int64_t epoch) const = 0;
  /// The sample that takes the place of one (by index and epoch) that cannot be read.
  virtual int64_t replacement(int64_t, int64_t, Random& random) const { return random.below(size()); }
  /// Where problems under OnError::kSkip are counted, or nullptr.
  virtual DataReport* report() const { return nullptr; }
};

}  // namespace fathom
