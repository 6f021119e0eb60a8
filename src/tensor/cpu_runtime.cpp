#include "tensor/cpu_runtime.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <mutex>

#include "base/error.h"

namespace fathom {
namespace {

/// The value in bytes of a line "Key:   123 kB" of a file under /proc, or 0.
int64_t read_kilobytes(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

/// FLOP/s of a square product, the best of a few runs within 0.1 s.
double measure_product(at::ScalarType type) {
  constexpr int64_t kSize = 768;
  const c10::AutoGradMode no_grad(false);
  const at::Tensor a = at::full({kSize, kSize}, 0.5, type), b = at::full({kSize, kSize}, 0.25, type);
  at::mm(a, b);
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  double best_seconds = 1e9;
  do {
    const auto before = Clock::now();
    at::mm(a, b);
    best_seconds = std::min(best_seconds, std::chrono::duration<double>(Clock::now() - before).count());
  } while (Clock::now() - start < std::chrono::milliseconds(100));
  return 2.0 * kSize * kSize * kSize / best_seconds;
}

class CpuRuntime final : public DeviceRuntime {
 public:
  at::Device device() const override { return at::kCPU; }
  std::string name() const override { return processor_name(); }
  DeviceMemory memory() const override {
    return {.total_bytes = usable_memory_bytes(),
            .used_bytes = read_kilobytes("/proc/self/status", "VmRSS"),
            .peak_bytes = read_kilobytes("/proc/self/status", "VmHWM")};
  }
  void reset_peak_memory() override {
    std::ofstream("/proc/self/clear_refs") << "5";  // the kernel's word for "forget the peak"
  }
  void release_cached_memory() override { ::malloc_trim(0); }
  void synchronize() override {}
  void activate() override {}
  at::Tensor pinned_empty(at::IntArrayRef sizes, at::ScalarType type) override {
    return at::empty(sizes, type);
  }
  double peak_flops(at::ScalarType type) override {
    if (!at::isFloatingType(type)) return 0;
    std::lock_guard lock(mutex_);
    const auto found = peak_flops_.find(type);
    return found != peak_flops_.end() ? found->second : peak_flops_[type] = measure_product(type);
  }
  bool is_fast(at::ScalarType type) override;
  std::unique_ptr<DeviceGraph> make_graph(DeviceGraph*) override { return nullptr; }

 private:
  std::mutex mutex_;
  std::map<at::ScalarType, double> peak_flops_;
};

bool CpuRuntime::is_fast(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
    case at::kDouble:
      return true;
    case at::kBFloat16:
      return __builtin_cpu_supports("avx512bf16");
    default:
      return false;
  }
}

}  // namespace

int64_t usable_memory_bytes() {
  int64_t bytes = read_kilobytes("/proc/meminfo", "MemTotal");
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    int64_t limit = 0;
    if (std::ifstream(path) >> limit && limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

void keep_freed_memory() {
  ::mallopt(M_MMAP_MAX, 0);  // a threshold above 32 MB is refused
  ::mallopt(M_TRIM_THRESHOLD, 2000 << 20);
}

std::unique_ptr<DeviceRuntime> make_cpu_runtime() {
  return std::make_unique<CpuRuntime>();
}

}  // namespace fathom
