// A step's device work as one graph: recorded once, replayed from then on, without the host's cost of
// launching it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tensor/device_runtime.h"
#include "train/task.h"

namespace fathom {

/// Runs a step's work on the tensors of its micro-batches. For each set of shapes, and anew when the work's
/// kind changes, the first runs are launched
/// as they come, so that whatever is made at first use is there; then the work is recorded. Recordings share
/// their memory: what `run` returns holds until the next `run`. Where the device has no graphs, or `enabled`
/// is false, every run is launched. One thread.
class StepRecorder {
 public:
  /// Must launch the same operations on the device whatever the tensors hold, and not wait for it.
  using Work = std::function<std::vector<at::Tensor>(std::span<const MicroBatch>)>;

  StepRecorder(DeviceRuntime& runtime, bool enabled) : runtime_(runtime), enabled_(enabled) {}

  /// `kind`: whatever else decides which operations are launched.
  std::vector<at::Tensor> run(const std::vector<MicroBatch>& inputs, const Work& work, int64_t kind = 0);
  /// From now on every run is launched: for work that was seen to wait for the device.
  void disable();
  /// Recordings made so far.
  int64_t num_recordings() const { return num_recordings_; }

 private:
  struct Recording {
    std::vector<MicroBatch> inputs;  ///< where the recorded work reads
    std::vector<at::Tensor> outputs;
    std::unique_ptr<DeviceGraph> graph;  ///< null until recorded
    int64_t num_launched = 0;
  };

  Recording* find(const std::vector<MicroBatch>& inputs);
  bool record(Recording& recording, const Work& work);

  DeviceRuntime& runtime_;
  bool enabled_;
  int64_t kind_ = 0;
  int64_t num_recordings_ = 0;
  std::vector<Recording> recordings_;
};

}  // namespace fathom
