// Captured graphs.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "base/error.h"
#include "cuda/plugin.h"

namespace fathom::cuda {
namespace {

class CudaGraph final : public DeviceGraph {
 public:
  CudaGraph(at::Device device, CudaGraph* beside)
      : device_(device), pool_(beside ? beside->graph_.pool() : at::cuda::MempoolId_t{0, 0}) {}

  void capture(const std::function<void()>& work) override {
    FATHOM_CHECK(!is_captured_, "[graph] expected an empty graph, got one that is captured already");
    const c10::cuda::CUDAGuard guard(device_);
    c10::cuda::device_synchronize();
    // Of high priority: its branches (SideStream) take what it leaves.
    const c10::cuda::CUDAStream own = c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device_.index());
    const c10::cuda::CUDAStreamGuard on_own(own);
    // Thread-local: background workers may go on allocating pinned memory meanwhile.
    graph_.capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      abandon();
      throw;
    }
    graph_.capture_end();
    is_captured_ = true;
  }

  void replay() override {
    FATHOM_CHECK(is_captured_, "[graph] expected a captured graph");
    graph_.replay();
  }

 private:
  /// Ends a capture whose work failed; its own complaint would hide the reason.
  void abandon() noexcept {
    try {
      graph_.capture_end();
    } catch (const std::exception&) {
    }
    graph_.reset();
  }

  const at::Device device_;
  const at::cuda::MempoolId_t pool_;  ///< {0, 0} is one of its own
  at::cuda::CUDAGraph graph_;
  bool is_captured_ = false;
};

}  // namespace

std::unique_ptr<DeviceGraph> make_graph(at::Device device, DeviceGraph* beside) {
  return std::make_unique<CudaGraph>(device, static_cast<CudaGraph*>(beside));
}

}  // namespace fathom::cuda
