// GELU behind a product: which kernel multiplies, and the pass back through GELU, which adds up the bias's
// gradient beside it and is memory-bound.
#include "cuda/linear_gelu.h"

#include "cuda/awaited.cuh"
#include "cuda/column_blocks.cuh"
#include "cuda/counted_product.h"
#include "cuda/gelu_formula.cuh"

namespace fathom::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kColumnThreads) gelu_grad_kernel(Awaited<GeluGradArgs> awaited) {
  const GeluGradArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int64_t vectors = args.dim / kWidth, place = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const auto *grad = static_cast<const Vector*>(args.grad) + place,
             *x = static_cast<const Vector*>(args.x) + place;
  auto* grad_x = static_cast<Vector*>(args.grad_x) + place;
  float sum[kWidth] = {};
  if (place < vectors) {
    const int64_t step = int64_t{gridDim.y} * blockDim.y, rows = column_rows(args.rows, args.count);
#pragma unroll 2
    for (int64_t row = int64_t{blockIdx.y} * blockDim.y + threadIdx.y; row < rows; row += step) {
      const Vector above = grad[row * vectors], value = x[row * vectors];
      Vector result;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float at = to_float(value.values[i]);
        const float g = to_float(above.values[i]) * (normal_share<T>(at) + at * normal_density<T>(at));
        result.values[i] = from_float<T>(g);
        sum[i] += g;
      }
      grad_x[row * vectors] = result;
    }
  }
  write_column_sums(sum, args.partial, args.dim);
}

template <typename T>
cudaError_t gelu_grad(const GeluGradArgs& args, cudaStream_t stream) {
  const int64_t vectors = args.dim / Vector16<T>::kWidth;
  launch_awaiting(gelu_grad_kernel<T>, column_grid(vectors, args.blocks), column_threads(vectors), 0, stream,
                  args);
  return cudaGetLastError();
}

}  // namespace

bool linear_gelu_fits(ElementType type, int64_t rows, int64_t in_dim, int64_t out_dim) {
  return rows > 0 && counted_product_fits(type, rows, in_dim, out_dim);
}

cudaError_t launch_linear_gelu(ElementType type, const LinearGeluArgs& args, cudaStream_t stream) {
  if (!linear_gelu_fits(type, args.rows, args.in_dim, args.out_dim)) return cudaErrorInvalidValue;
  return launch_gelu_product(type, args, stream);
}

int64_t gelu_grad_blocks(ElementType type, int64_t rows, int64_t dim) {
  return column_row_blocks(type, rows, dim);
}

cudaError_t launch_gelu_grad(ElementType type, const GeluGradArgs& args, cudaStream_t stream) {
  return with_element_but_double(type,
                                 [&](auto element) { return gelu_grad<decltype(element)>(args, stream); });
}

}  // namespace fathom::cuda
