// Kernels that are brought to the multiprocessors while their predecessors in the stream end (programmatic
// dependent launch, CUDA C++ programming guide), so that a launch's own time is not waited for.
#pragma once

#include <cuda_runtime.h>

#include "cuda/early_launch.h"

namespace fathom::cuda {

/// Returns when all earlier work of the stream is done and its writes are seen. Every kernel that is launched
/// early calls it before it touches memory, in every thread that does; a second time costs nothing.
__device__ __forceinline__ void await_predecessors() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Successors may take the multiprocessors' free places from now on.
__device__ __forceinline__ void allow_successors() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// A kernel's arguments, which it gets by awaiting its predecessors.
template <typename Args>
class Awaited {
 public:
  explicit Awaited(const Args& args) : args_(args) {}

  __device__ __forceinline__ const Args& get() const {
    await_predecessors();
    allow_successors();
    return args_;
  }

 private:
  Args args_;
};

enum class Launch {
  kEarly,   ///< where the card can
  kInTurn,  ///< when all predecessors have ended: for kernels whose blocks, waiting, would keep others out
};

/// Launches a kernel; an error is the thread's last one, as of other launches.
template <Launch kWhen = Launch::kEarly, typename Args, typename... Others>
void launch_awaiting(void (*kernel)(Awaited<Args>, Others...), dim3 grid, dim3 block, size_t shared_bytes,
                     cudaStream_t stream, const Args& args, const Others&... others) {
  cudaLaunchAttribute attribute = early_launch();
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = kWhen == Launch::kEarly && launches_early() ? 1 : 0;
  (void)cudaLaunchKernelEx(&config, kernel, Awaited<Args>(args), others...);
}

}  // namespace fathom::cuda
