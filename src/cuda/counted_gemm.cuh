// CountedGemm: which tiles and which layouts the products with counted rows take.
#pragma once

#include "cuda/counted_gemm.h"
#include "cuda/hopper_gemm.cuh"

namespace fathom::cuda {

template <typename T>
cudaError_t CountedGemm<T>::product(const CountedProductArgs& args, cudaStream_t stream) {
  using Element = CutlassType<T>;
  const int rows = static_cast<int>(args.rows), out = static_cast<int>(args.out_dim),
            in = static_cast<int>(args.in_dim);
  const GemmArgs gemm{args.x, args.weight, args.y, {args.count, rows}, rows, out, in};
  if (takes_large_tiles(args.expected, args.out_dim))
    return Gemm<Element, Element, RowMajor, ColumnMajor, LargeShape, Counted::kRows>::launch(gemm, stream);
  return Gemm<Element, Element, RowMajor, ColumnMajor, SmallShape, Counted::kRows>::launch(gemm, stream);
}

template <typename T>
cudaError_t CountedGemm<T>::input_grad(const CountedInputGradArgs& args, cudaStream_t stream) {
  using Element = CutlassType<T>;
  const int rows = static_cast<int>(args.rows), out = static_cast<int>(args.out_dim),
            in = static_cast<int>(args.in_dim);
  const GemmArgs gemm{args.grad, args.weight, args.grad_x, {args.count, rows}, rows, in, out};
  if (takes_large_tiles(args.expected, args.in_dim))
    return Gemm<Element, Element, RowMajor, RowMajor, LargeShape, Counted::kRows>::launch(gemm, stream);
  return Gemm<Element, Element, RowMajor, RowMajor, SmallShape, Counted::kRows>::launch(gemm, stream);
}

template <typename T>
cudaError_t CountedGemm<T>::weight_grad(const CountedWeightGradArgs& args, int splits, cudaStream_t stream) {
  using Element = CutlassType<T>;
  const int rows = static_cast<int>(args.rows), out = static_cast<int>(args.out_dim),
            in = static_cast<int>(args.in_dim);
  GemmArgs gemm{args.grad, args.x, args.grad_weight, {args.count, rows}, out, in, rows, splits};
  if (splits > 1) gemm.out = args.workspace;
  if (splits > 1 || args.grad_weight_type == ElementType::kFloat)
    return Gemm<Element, float, ColumnMajor, RowMajor, SquareShape, Counted::kReduction>::launch(gemm,
                                                                                                 stream);
  return Gemm<Element, Element, ColumnMajor, RowMajor, SquareShape, Counted::kReduction>::launch(gemm,
                                                                                                 stream);
}

}  // namespace fathom::cuda
