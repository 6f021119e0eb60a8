#include "cuda/stream_branch.h"

#include <c10/cuda/CUDAStream.h>

#include <exception>
#include <utility>

#include "tensor/stream_order.h"

namespace fathom::cuda {

StreamBranch::StreamBranch() : stream_(c10::cuda::getStreamFromPool()) {
  order(c10::cuda::getCurrentCUDAStream(), stream_);
}

StreamBranch::~StreamBranch() {
  try {
    join();
  } catch (const std::exception&) {  // the error that is on its way says more
  }
}

cudaStream_t StreamBranch::stream() const {
  return c10::cuda::CUDAStream(stream_);
}

void StreamBranch::join() {
  if (std::exchange(is_joined_, true)) return;
  order(stream_, c10::cuda::getCurrentCUDAStream());
}

}  // namespace fathom::cuda
