// What was wrong with a data set, and where: filled by readers and loaders, printed by `fathom data inspect`.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace fathom {

/// What to do with a row, image or text that cannot be read.
enum class OnError {
  kStop,  ///< throw: the message names file and line
  kSkip,  ///< leave it out, count it, go on
};

struct DataProblem {
  std::string source;  ///< "file:line", or the file alone
  std::string reason;
};

/// Counts every problem and keeps the first `kMaxKept` of them. Safe to use from many threads.
class DataReport {
 public:
  static constexpr int64_t kMaxKept = 1000;

  /// `table` is that of the recipe ("data.train") that holds `on_error`, or empty.
  explicit DataReport(OnError on_error = OnError::kStop, std::string table = {})
      : on_error_(on_error), table_(std::move(table)) {}

  /// Throws `Error(kData, "SOURCE: REASON")` under kStop, with the switch that skips such rows where a table
  /// has it; records it under kSkip.
  void handle(const DataProblem& problem);
  void add(const std::string& source, const std::string& reason);
  int64_t count() const;
  std::vector<DataProblem> problems() const;
  /// {"count": n, "problems": [{"source", "reason"}, …]}
  Json to_json() const;

 private:
  const OnError on_error_;
  const std::string table_;
  mutable std::mutex mutex_;
  int64_t count_ = 0;
  std::vector<DataProblem> kept_;
};

}  // namespace fathom
