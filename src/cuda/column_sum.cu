// Sums of columns: memory-bound (column_blocks.cuh).
#include "cuda/column_sum.h"

#include "cuda/awaited.cuh"
#include "cuda/column_blocks.cuh"

namespace fathom::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kColumnThreads) column_sum_kernel(Awaited<ColumnSumArgs> awaited) {
  const ColumnSumArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int64_t vectors = args.dim / kWidth, place = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const auto* x = static_cast<const Vector*>(args.x) + place;
  float sum[kWidth] = {};
  if (place < vectors) {
    const int64_t step = int64_t{gridDim.y} * blockDim.y, rows = column_rows(args.rows, args.count);
#pragma unroll 4
    for (int64_t row = int64_t{blockIdx.y} * blockDim.y + threadIdx.y; row < rows; row += step) {
      const Vector vector = x[row * vectors];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum[i] += to_float(vector.values[i]);
    }
  }
  write_column_sums(sum, args.partial, args.dim);
}

template <typename T>
cudaError_t launch(const ColumnSumArgs& args, cudaStream_t stream) {
  const int64_t vectors = args.dim / Vector16<T>::kWidth;
  launch_awaiting(column_sum_kernel<T>, column_grid(vectors, args.blocks), column_threads(vectors), 0, stream,
                  args);
  return cudaGetLastError();
}

}  // namespace

int64_t column_sum_blocks(ElementType type, int64_t rows, int64_t dim) {
  return column_row_blocks(type, rows, dim);
}

cudaError_t launch_column_sum(ElementType type, const ColumnSumArgs& args, cudaStream_t stream) {
  return with_element_but_double(type, [&](auto element) { return launch<decltype(element)>(args, stream); });
}

}  // namespace fathom::cuda
