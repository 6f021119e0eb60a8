// Gradients of a causal gate's norm and projection: small work, a thread a column and every 16th row.
#include "cuda/awaited.cuh"
#include "cuda/scorer_product.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kGradColumns = 32, kGradRows = 16;  ///< of a block's threads

template <typename T>
__global__ void __launch_bounds__(kGradColumns* kGradRows)
    weight_grad_kernel(Awaited<ScorerWeightGradArgs> awaited) {
  const ScorerWeightGradArgs& args = awaited.get();
  __shared__ float shared[kGradRows][kGradColumns];
  const int64_t column = int64_t{blockIdx.x} * kGradColumns + threadIdx.x, rows = 2 * args.inner;
  float sum = 0;
  if (column < args.dim) {
    const float norm = to_float(static_cast<const T*>(args.norm)[column]);
#pragma unroll 8
    for (int64_t row = threadIdx.y; row < rows; row += kGradRows) {
      const float joint = args.joint[row * args.dim + column];
      sum += joint * to_float(static_cast<const T*>(args.project)[row * args.dim + column]);
      args.grad_project[row * args.dim + column] = joint * norm;
    }
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= args.dim) return;
  float total = 0;
#pragma unroll
  for (int row = 0; row < kGradRows; ++row) total += shared[row][threadIdx.x];
  args.grad_norm[column] = total;
}

template <typename T>
cudaError_t weight_grad(const ScorerWeightGradArgs& args, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((args.dim + kGradColumns - 1) / kGradColumns);
  launch_awaiting(weight_grad_kernel<T>, blocks, dim3(kGradColumns, kGradRows), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_scorer_weight_grad(ElementType type, const ScorerWeightGradArgs& args,
                                      cudaStream_t stream) {
  return with_element_but_double(type,
                                 [&](auto element) { return weight_grad<decltype(element)>(args, stream); });
}

}  // namespace fathom::cuda
