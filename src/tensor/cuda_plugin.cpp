#include "tensor/cuda_plugin.h"

#include <dlfcn.h>
#include <torch/version.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"

namespace fathom {
namespace {

constexpr const char* kFileName = "libfathom_cuda.so";

/// The plug-in's path, or empty: beside the library (or test program) that holds this function.
std::string plugin_path() {
  if (const char* path = std::getenv("FATHOM_PLUGIN")) return path;
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&find_cuda_plugin), &info) == 0 || !info.dli_fname) return "";
  const auto path = std::filesystem::path(info.dli_fname).parent_path() / kFileName;
  std::error_code code;
  return std::filesystem::exists(path, code) ? std::filesystem::absolute(path, code).string() : "";
}

/// The reason why `plugin` cannot be used, or empty.
std::string find_mismatch(const CudaPlugin& plugin) {
  if (plugin.version != CudaPlugin::kVersion) {
    return fmt::format("it speaks version {} of the plug-in interface, this program {}", plugin.version,
                       CudaPlugin::kVersion);
  }
  if (plugin.torch_version != std::string(TORCH_VERSION)) {
    return fmt::format("it was built for LibTorch {}, this program for {}", plugin.torch_version,
                       TORCH_VERSION);
  }
  return "";
}

CudaPluginSearch open_plugin() {
  CudaPluginSearch result{.path = plugin_path()};
  if (result.path.empty()) {
    result.reason = fmt::format("no CUDA plug-in ({} is not beside the program's library)", kFileName);
    return result;
  }
  if (result.path == "none") {
    result = {.reason = "the CUDA plug-in is forbidden (FATHOM_PLUGIN=none)"};
    return result;
  }
  void* library = dlopen(result.path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    result.reason = fmt::format("the CUDA plug-in cannot be opened: {}", dlerror());
    return result;
  }
  const auto entry = reinterpret_cast<CudaPlugin::Entry>(dlsym(library, CudaPlugin::kEntry));
  if (!entry) {
    result.reason = fmt::format("{} is no Fathom plug-in", result.path);
    return result;
  }
  const CudaPlugin* plugin = entry();
  if (const std::string mismatch = find_mismatch(*plugin); !mismatch.empty()) {
    result.reason = fmt::format("{} does not fit: {}", result.path, mismatch);
    return result;
  }
  result.plugin = plugin;
  return result;
}

}  // namespace

const CudaPluginSearch& find_cuda_plugin() {
  static const CudaPluginSearch result = open_plugin();
  return result;
}

}  // namespace fathom
