// Process groups over NCCL.
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <cstdlib>

#include "cuda/plugin.h"

namespace fathom::cuda {

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank,
                                            int64_t size, at::Device device,
                                            std::chrono::milliseconds timeout) {
  // LibTorch would end the process on a lost peer without saying which; the failure watch aborts and names
  // it.
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", /*overwrite=*/0);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, static_cast<int>(rank),
                                                           static_cast<int>(size), options);
  group->setBoundDeviceId(device);
  group->eagerConnectSingleDevice(device);  // so that a broken link shows now and not in the first step
  return group;
}

std::string nccl_version() {
  return c10d::getNcclVersion();
}

}  // namespace fathom::cuda
