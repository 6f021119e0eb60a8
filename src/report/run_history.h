// What a run logged, as curves.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "report/plots.h"

namespace fathom {

/// Curves by key, in rising steps.
struct RunHistory {
  std::map<std::string, std::vector<PlotPoint>> training;    ///< "loss", "learning_rate", …
  std::map<std::string, std::vector<PlotPoint>> evaluation;  ///< "t2i_r10", "bits_per_byte", …

  /// Reads RUN/log.jsonl. A torn last line is left out; null (a value that is no number) too. Errors (kData):
  /// "FILE:LINE: reason".
  static RunHistory read(const std::string& path);
};

}  // namespace fathom
