// What a run tells of itself: log lines, TensorBoard curves, the progress bar, and the alarm when a loss is
// no number.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "train/deferred_read.h"
#include "train/run_log.h"
#include "train/task.h"
#include "train/tensorboard.h"

namespace fathom {

/// Where and how to report; ranks other than 0 have no folder and stay silent.
struct MonitorSetup {
  std::string run_folder;  ///< empty: write nothing
  int64_t log_every = 10;
  int64_t start_step = 0;
  int64_t total_steps = 0;
  bool scales_loss = false;                       ///< a gradient may overflow as long as the scale can fall
  std::vector<std::string> further_figures = {};  ///< of each step, beside loss and norm
  int64_t tokens_per_sample = 0;
  double questions_per_sample = 0;
  double flops_per_sample = 0;
  double peak_flops = 0;  ///< of all ranks; 0 when unknown
};

/// What is known of a step when it has been given to the device.
struct StepRecord {
  int64_t step = 0;  ///< from 1: steps done
  double learning_rate = 0;
  int64_t samples = 0;      ///< over all ranks
  double wait_seconds = 0;  ///< the loader's total so far
  /// Loss, gradient norm, ranks that wish to stop, where the loss is scaled its scale and the steps skipped
  /// so far, further figures.
  DeferredRead values;
  std::chrono::steady_clock::time_point given = std::chrono::steady_clock::now();
};

/// Settles each step after the next one has been given to the device, so that reading its loss delays
/// nothing. One thread only.
class Monitor {
 public:
  Monitor(const MonitorSetup& setup, DeviceRuntime& runtime);

  /// Errors (kConfig): the loss or gradient of an earlier step is not finite, and no smaller loss scale could
  /// help; the message names the step.
  void add(StepRecord record);
  /// Settles all steps added so far.
  void flush();
  void evaluated(int64_t step, const Metrics& metrics);
  /// `flush`, and what was written survives a power cut.
  void sync();

  /// Whether a settled step carried a wish to stop.
  bool stop_requested() const { return stop_requested_; }
  double last_loss() const { return last_loss_; }
  double seconds() const;  ///< of training, former parts of the run included

  /// Leaves time spent on something else than training out of the throughput.
  void exclude(double seconds) { interval_.excluded_seconds += seconds; }

  /// Means that the next log line continues, and the clock. REQUIRES nothing unsettled.
  Json state() const;
  void load_state(const Json& state);

 private:
  using Clock = std::chrono::steady_clock;
  /// Since the last log line.
  struct Interval {
    double loss_sum = 0;
    double norm_sum = 0;
    std::vector<double> further_sums;
    int64_t steps = 0;
    int64_t overflows = 0;      ///< steps without a norm
    int64_t timed_samples = 0;  ///< of this process, unlike the sums
    double wait_start = 0;
    double excluded_seconds = 0;
    Clock::time_point start = Clock::now();
  };

  void settle(const StepRecord& record);
  void write_line(const StepRecord& record);
  size_t first_further() const { return setup_.scales_loss ? 5 : 3; }
  Json throughput(const StepRecord& record) const;

  MonitorSetup setup_;
  DeviceRuntime& runtime_;
  std::optional<RunLog> log_;
  std::optional<EventWriter> events_;
  std::optional<Progress> progress_;
  std::deque<StepRecord> pending_;
  Interval interval_;
  Clock::time_point started_ = Clock::now();
  double former_seconds_ = 0;
  double last_loss_ = 0;
  double loss_scale_ = 1;  ///< of the last settled step
  double skipped_steps_ = 0;
  std::string note_;
  bool stop_requested_ = false;
};

}  // namespace fathom
