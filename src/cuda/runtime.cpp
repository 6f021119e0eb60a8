// A GPU as a device.
#include <ATen/Context.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include "base/error.h"
#include "cuda/plugin.h"
#include "cuda/registration.h"

namespace fathom::cuda {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

class CudaRuntime final : public DeviceRuntime {
 public:
  explicit CudaRuntime(at::Device device) : device_(device) {
    at::globalContext().lazyInitDevice(at::kCUDA);
    activate();
    missing_kernels_ = register_kernels();
  }

  at::Device device() const override { return device_; }
  std::string name() const override { return properties().name; }
  std::string missing_kernels() const override { return missing_kernels_; }

  DeviceMemory memory() const override {
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto bytes = allocator::getDeviceStats(device_.index()).allocated_bytes[kAll];
    return {.total_bytes = static_cast<int64_t>(properties().totalGlobalMem),
            .used_bytes = bytes.current,
            .peak_bytes = bytes.peak};
  }
  void reset_peak_memory() override { allocator::resetPeakStats(device_.index()); }
  void release_cached_memory() override { allocator::emptyCache(); }

  void synchronize() override {
    const c10::cuda::CUDAGuard guard(device_);
    c10::cuda::device_synchronize();
  }
  void activate() override { c10::cuda::set_device(device_.index()); }

  at::Tensor pinned_empty(at::IntArrayRef sizes, at::ScalarType type) override {
    return at::empty(sizes, at::TensorOptions(type).pinned_memory(true));
  }

  double peak_flops(at::ScalarType type) override {
    return peak_flops_of(name(), type, at::globalContext().allowTF32CuBLAS());
  }
  bool is_fast(at::ScalarType type) override {
    switch (type) {
      case at::kFloat:
      case at::kDouble:
        return true;
      case at::kHalf:
        return properties().major >= 7;
      case at::kBFloat16:
        return properties().major >= 8;
      default:
        return false;
    }
  }
  std::unique_ptr<DeviceGraph> make_graph(DeviceGraph* beside) override {
    return cuda::make_graph(device_, beside);
  }

 private:
  const cudaDeviceProp& properties() const { return *at::cuda::getDeviceProperties(device_.index()); }

  const at::Device device_;
  std::string missing_kernels_;
};

}  // namespace

int64_t num_devices(std::string& reason) {
  try {
    return c10::cuda::device_count_ensure_non_zero();
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    reason = text.substr(0, text.find('\n'));
    return 0;
  }
}

std::unique_ptr<DeviceRuntime> make_runtime(at::Device device) {
  FATHOM_CHECK(device.is_cuda() && device.has_index(), "[cuda] expected a numbered CUDA device, got {}",
               device.str());
  return std::make_unique<CudaRuntime>(device);
}

}  // namespace fathom::cuda
