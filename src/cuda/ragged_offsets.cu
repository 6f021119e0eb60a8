// A few numbers a sequence.
#include "cuda/ragged_offsets.h"

#include "cuda/awaited.cuh"
#include "cuda/ragged_offsets.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) ragged_offset_kernel(Awaited<RaggedOffsetArgs> awaited) {
  const RaggedOffsetArgs& args = awaited.get();
  const int64_t place = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (place <= args.sequences) write_ragged_offsets(args, place);
}

}  // namespace

cudaError_t launch_ragged_offsets(const RaggedOffsetArgs& args, cudaStream_t stream) {
  launch_awaiting(ragged_offset_kernel, static_cast<unsigned>(args.sequences / kThreads + 1), kThreads, 0,
                  stream, args);
  return cudaGetLastError();
}

}  // namespace fathom::cuda
