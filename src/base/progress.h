// Progress on standard error: a bar on a terminal, otherwise a line every few seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace fathom {

/// Shows how far a job is and how long it will take. One thread only. Finishes its line when destroyed.
class Progress {
 public:
  /// `total` 0 means unknown. `start` is where a resumed job begins.
  Progress(std::string label, int64_t total, int64_t start = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `note` stands behind the figures, e.g. "loss 2.31". Cheap: it draws at most ten times a second.
  void update(int64_t done, const std::string& note = "");
  /// Draws the last state and ends the line.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  void draw();

  std::string label_;
  int64_t total_;
  int64_t start_;
  int64_t done_;
  std::string note_;
  Clock::time_point started_ = Clock::now();
  Clock::time_point drawn_{};
  bool terminal_;
  bool finished_ = false;
};

/// "1:05" or "2:03:09".
std::string format_duration(double seconds);

}  // namespace fathom
