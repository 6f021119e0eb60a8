// What the registration of keyed dropout hands to its kernel: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// `x`, `y`: [samples, size]; `key`: [samples], on the device. An element stays, times `scale`, where its
/// bits are at least `threshold`.
struct DropoutArgs {
  const void* x;
  void* y;
  const int64_t* key;
  int64_t samples;
  int64_t size;
  int64_t stream;
  uint32_t threshold;
  double scale;
};

/// Whether the current device can run this file's code: cudaErrorNoKernelImageForDevice if not.
cudaError_t probe_kernel();
cudaError_t launch_keyed_dropout(ElementType type, const DropoutArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
