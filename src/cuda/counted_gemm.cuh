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
  GemmArgs gemm{args.x, args.weight, args.y, {args.count, rows}, rows, out, in};
  gemm.parts = args.workspace;
  if (takes_large_tiles(args.expected, args.out_dim, args.in_dim, gemm.parts != nullptr))
    return Gemm<Element, Element, RowMajor, ColumnMajor, LargeShape, Counted::kRows>::launch(gemm, stream);
  return Gemm<Element, Element, RowMajor, ColumnMajor, SmallShape, Counted::kRows>::launch(gemm, stream);
}

template <typename T>
cudaError_t CountedGemm<T>::input_grad(const CountedInputGradArgs& args, cudaStream_t stream) {
  using Element = CutlassType<T>;
  const int rows = static_cast<int>(args.rows), out = static_cast<int>(args.out_dim),
            in = static_cast<int>(args.in_dim);
  GemmArgs gemm{args.grad, args.weight, args.grad_x, {args.count, rows}, rows, in, out};
  gemm.parts = args.workspace;
  if (takes_large_tiles(args.expected, args.in_dim, args.out_dim, gemm.parts != nullptr))
    return Gemm<Element, Element, RowMajor, RowMajor, LargeShape, Counted::kRows>::launch(gemm, stream);
  return Gemm<Element, Element, RowMajor, RowMajor, SmallShape, Counted::kRows>::launch(gemm, stream);
}

template <typename T>
cudaError_t CountedGemm<T>::weight_grad(const CountedWeightGradArgs& args, const WeightGradTiles& tiles,
                                        cudaStream_t stream) {
  using Element = CutlassType<T>;
  const int rows = static_cast<int>(args.rows), out = static_cast<int>(args.out_dim),
            in = static_cast<int>(args.in_dim);
  GemmArgs gemm{args.grad, args.x, args.grad_weight, {args.count, rows}, out, in, rows, tiles.splits};
  if (tiles.are_large) gemm.parts = args.workspace;
  if (tiles.splits > 1) gemm.out = args.workspace;
  const auto launch = [&](auto shape, auto result) {
    using Product =
        Gemm<Element, decltype(result), ColumnMajor, RowMajor, decltype(shape), Counted::kReduction>;
    return Product::launch(gemm, stream);
  };
  const bool is_float = tiles.splits > 1 || args.grad_weight_type == ElementType::kFloat;
  if (tiles.are_large) return is_float ? launch(LargeShape{}, float{}) : launch(LargeShape{}, Element{});
  return is_float ? launch(SquareShape{}, float{}) : launch(SquareShape{}, Element{});
}

}  // namespace fathom::cuda
