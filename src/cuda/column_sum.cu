// Sums of columns: memory-bound. A thread adds up one 16-byte vector of columns over its rows.
#include <algorithm>

#include "cuda/column_sum.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 256;

/// Neighbouring threads on one row's vectors, at most a warp; the others of the block take other rows.
int lanes_of(int64_t vectors) {
  int lanes = 1;
  while (lanes < 32 && lanes < vectors) lanes *= 2;
  return lanes;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) column_sum_kernel(ColumnSumArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  __shared__ float shared[kThreads * kWidth];
  const int64_t vectors = args.dim / kWidth, place = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const auto* x = reinterpret_cast<const Vector*>(args.x) + place;
  float sum[kWidth] = {};
  if (place < vectors) {
    const int64_t step = int64_t{gridDim.y} * blockDim.y;
#pragma unroll 4
    for (int64_t row = int64_t{blockIdx.y} * blockDim.y + threadIdx.y; row < args.rows; row += step) {
      const Vector vector = x[row * vectors];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum[i] += to_float(vector.values[i]);
    }
  }
  const int row_size = static_cast<int>(blockDim.x) * kWidth;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) shared[threadIdx.y * row_size + threadIdx.x * kWidth + i] = sum[i];
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  for (int i = thread; i < row_size; i += kThreads) {
    const int64_t column = int64_t{blockIdx.x} * row_size + i;
    if (column >= args.dim) break;
    float total = 0;
    for (int row = 0; row < static_cast<int>(blockDim.y); ++row) total += shared[row * row_size + i];
    args.partial[blockIdx.y * args.dim + column] = total;
  }
}

template <typename T>
cudaError_t launch(const ColumnSumArgs& args, cudaStream_t stream) {
  const int64_t vectors = args.dim / Vector16<T>::kWidth;
  const auto lanes = static_cast<unsigned>(lanes_of(vectors));
  const dim3 grid(static_cast<unsigned>((vectors + lanes - 1) / lanes), static_cast<unsigned>(args.blocks));
  column_sum_kernel<T><<<grid, dim3(lanes, kThreads / lanes), 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

int64_t column_sum_blocks(ElementType type, int64_t rows, int64_t dim) {
  const int64_t vectors = dim / (type == ElementType::kFloat ? 4 : 8), lanes = lanes_of(vectors);
  const int64_t columns = (vectors + lanes - 1) / lanes, rows_a_turn = kThreads / lanes;
  return std::max<int64_t>(1, std::min<int64_t>((rows + 4 * rows_a_turn - 1) / (4 * rows_a_turn),
                                                int64_t{kMultiprocessors} * 8 / columns));
}

cudaError_t launch_column_sum(ElementType type, const ColumnSumArgs& args, cudaStream_t stream) {
  switch (type) {
    case ElementType::kFloat:
      return launch<float>(args, stream);
    case ElementType::kHalf:
      return launch<__half>(args, stream);
    case ElementType::kBFloat16:
      return launch<__nv_bfloat16>(args, stream);
    case ElementType::kDouble:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
