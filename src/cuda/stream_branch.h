// A part of an operation beside the rest of it.
#pragma once

#include <c10/core/Stream.h>
#include <cuda_runtime_api.h>

namespace fathom::cuda {

/// A stream that goes on from where the current one is when this is made, until it is joined; in a recording
/// a branch of the graph. What its work reads and writes has to live as long.
class StreamBranch {
 public:
  StreamBranch();
  ~StreamBranch();  ///< joins it, where an error has come between
  StreamBranch(const StreamBranch&) = delete;
  StreamBranch& operator=(const StreamBranch&) = delete;

  cudaStream_t stream() const;
  /// What the current stream is given from now on waits for what the branch was given.
  void join();

 private:
  c10::Stream stream_;
  bool is_joined_ = false;
};

}  // namespace fathom::cuda
