// A part of an operation beside the rest of it.
#pragma once

#include <c10/core/Stream.h>
#include <cuda_runtime_api.h>

namespace fathom::cuda {

/// A stream that goes on from where the current one is when this is made, until it is joined; in a recording a
/// branch of the graph. What its work reads and writes has to live as long.
class StreamBranch {
 public:
  StreamBranch();

  cudaStream_t stream() const;
  /// What the current stream is given from now on waits for what the branch was given.
  void join() const;

 private:
  c10::Stream stream_;
};

}  // namespace fathom::cuda
