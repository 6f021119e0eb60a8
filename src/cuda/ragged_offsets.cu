// A few numbers a sequence.
#include "cuda/ragged_offsets.h"

#include "cuda/awaited.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) ragged_offset_kernel(Awaited<RaggedOffsetArgs> awaited) {
  const RaggedOffsetArgs& args = awaited.get();
  const int64_t place = int64_t{blockIdx.x} * kThreads + threadIdx.x, places = args.sequences + 1;
  if (place >= places) return;
  const int32_t start = args.start[place];
  if (place < args.sequences) args.length[place] = args.start[place + 1] - start;
  for (int tensor = 0; tensor < kRaggedTensors; ++tensor)
    args.offset[tensor * places + place] =
        static_cast<int32_t>(static_cast<int64_t>(start) * args.row_elements[tensor]);
}

}  // namespace

cudaError_t launch_ragged_offsets(const RaggedOffsetArgs& args, cudaStream_t stream) {
  launch_awaiting(ragged_offset_kernel, static_cast<unsigned>(args.sequences / kThreads + 1), kThreads, 0,
                  stream, args);
  return cudaGetLastError();
}

}  // namespace fathom::cuda
