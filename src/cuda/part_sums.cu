// Sums of parts: latency counts, so the threads of a block share the parts of a few columns.
#include "cuda/part_sums.h"

#include "cuda/awaited.cuh"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kPartColumns = 32, kPartRows = 32;  ///< of a block's threads

template <typename T>
__global__ void __launch_bounds__(kPartColumns* kPartRows) part_sum_kernel(Awaited<PartSumArgs> awaited) {
  const PartSumArgs& args = awaited.get();
  __shared__ float shared[kPartRows][kPartColumns];
  const int64_t column = int64_t{blockIdx.x} * kPartColumns + threadIdx.x;
  float sum = 0;
  if (column < args.columns)
#pragma unroll 8
    for (int64_t part = threadIdx.y; part < args.count; part += kPartRows)
      sum += args.parts[part * args.columns + column];
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= args.columns) return;
  float total = 0;
#pragma unroll
  for (int row = 0; row < kPartRows; ++row) total += shared[row][threadIdx.x];
  static_cast<T*>(args.sum)[column] = narrowed<T>(total);
}

}  // namespace

cudaError_t launch_part_sum(ElementType type, const PartSumArgs& args, cudaStream_t stream) {
  return with_element(type, [&](auto element) {
    const unsigned blocks = item_blocks(args.columns, kPartColumns);
    launch_awaiting(part_sum_kernel<decltype(element)>, blocks, dim3(kPartColumns, kPartRows), 0, stream,
                    args);
    return cudaGetLastError();
  });
}

}  // namespace fathom::cuda
