// RUN/log.jsonl: one JSON object a line, kept in step with the checkpoints.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"

namespace fathom {

/// Appends lines; each is one `write`, so a crash tears at most the last. Every line has "step".
/// Training: {"step", "loss", "learning_rate", "gradient_norm" (null: every step overflowed), "loss_scale"?
/// (the last step's), "skipped_steps"? (so far), "saturated_casts"? (a step, over all ranks),
/// "samples_per_second", "tokens_per_second"?, "questions_per_second"?, "data_wait_share", "memory_mb",
/// "mfu"?, "seconds"}; evaluation: {"step", "evaluation": {NAME: value}, "seconds"}.
class RunLog {
 public:
  /// Keeps the lines of a former part of the run up to `last_step`, drops later and torn ones. Errors (kData)
  /// name the path and the cause (full disk, no permission).
  RunLog(std::string path, int64_t last_step);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  void write(const Json& line);
  /// What was written survives a power cut afterwards.
  void sync();

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace fathom
