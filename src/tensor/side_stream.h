// A device's work beside what is launched next.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <functional>
#include <optional>
#include <vector>

namespace fathom {

/// Launches work whose results are wanted late on a stream of its own, where it fills what the calling
/// thread's stream leaves idle: last turns of products, small kernels. May be recorded in a graph, in which
/// it becomes a branch. One thread at a time.
class SideStream {
 public:
  /// Of a device with streams. Errors (kInternal): it is a CPU.
  explicit SideStream(at::Device device);

  /// What `work` launches waits for what this thread's stream has been given, and for nothing that is given
  /// to it later. `read`: all that it reads and does not hold until `join` itself. What it makes may be read
  /// after `join`.
  void run(const std::function<void()>& work, at::TensorList read);
  /// What this thread's stream is given from now on waits for all that `run` has launched.
  void join();
  /// The same for what `run` had launched when this was called last. Where it is called now and then, the
  /// work never lags behind by more than two turns, nor is more of what it reads held.
  void join_former();

 private:
  at::Device device_;
  std::optional<c10::Stream> side_;
  std::vector<at::Tensor> read_;         ///< since `former_`
  std::vector<at::Tensor> former_read_;  ///< before that, since it was last joined
  std::optional<c10::Event> former_;     ///< the end of what `join_former` waits for next
  bool is_open_ = false;                 ///< something may still run
};

}  // namespace fathom
