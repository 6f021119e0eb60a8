#include "tensor/device.h"

#include <charconv>
#include <optional>

#include "base/error.h"
#include "tensor/cuda_plugin.h"

namespace fathom {
namespace {

/// The N of "cuda:N", or nothing.
std::optional<int64_t> parse_index(const std::string& name) {
  constexpr std::string_view kPrefix = "cuda:";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t index = -1;
  const char* end = name.data() + name.size();
  const auto [stop, code] = std::from_chars(name.data() + kPrefix.size(), end, index);
  return code == std::errc() && stop == end && index >= 0 ? std::optional(index) : std::nullopt;
}

at::Device cuda_device(int64_t index) {
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

void require_gpu(const CudaAvailability& cuda, int64_t index, const std::string& name) {
  if (cuda.num_devices == 0) fail(ErrorKind::kConfig, "device '{}': no CUDA device: {}", name, cuda.reason);
  if (index >= cuda.num_devices) {
    fail(ErrorKind::kConfig, "device '{}': GPU {} is asked for, but this machine shows {}{}", name, index,
         cuda.num_devices, name == "cuda" ? " (one process per GPU)" : "");
  }
}

}  // namespace

CudaAvailability cuda_availability() {
  const CudaPluginSearch& search = find_cuda_plugin();
  CudaAvailability result{.plugin_path = search.path, .reason = search.reason};
  if (search.plugin) result.num_devices = search.plugin->num_devices(result.reason);
  return result;
}

at::Device select_device(const std::string& name, int64_t local_rank) {
  if (name == "cpu") return at::kCPU;
  const std::optional<int64_t> index = parse_index(name);
  if (!index && name != "cuda" && name != "auto") {
    fail(ErrorKind::kConfig, "device '{}' is unknown (auto, cpu, cuda, cuda:N)", name);
  }
  const CudaAvailability cuda = cuda_availability();
  if (name == "auto" && cuda.num_devices == 0) return at::kCPU;
  require_gpu(cuda, index.value_or(local_rank), name);
  return cuda_device(index.value_or(local_rank));
}

}  // namespace fathom
