// The choice of a device: the only code that may ask about CUDA.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

namespace fathom {

/// "cpu", "cuda" (the GPU of this local rank), "cuda:N", or "auto" (a GPU if there is one, else the CPU).
/// Opens the CUDA plug-in before its first question. Errors (kConfig): an unknown name; a GPU that is asked
/// for but not there, with the reason (no plug-in, no driver, too few GPUs).
at::Device select_device(const std::string& name, int64_t local_rank = 0);

/// Whether CUDA can be used here; if not, `reason` says why in one line.
struct CudaAvailability {
  int64_t num_devices = 0;
  std::string plugin_path;  ///< empty when none was found
  std::string reason;       ///< empty when num_devices > 0
};
CudaAvailability cuda_availability();

}  // namespace fathom
