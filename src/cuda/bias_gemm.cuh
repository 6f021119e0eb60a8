// BiasGemm with CUTLASS, in tiles of one warp group each.
#pragma once

#include "cuda/bias_gemm.h"
#include "cuda/square_tiles.cuh"

namespace fathom::cuda {

template <typename T>
cudaError_t BiasGemm<T>::run(const CountedProductArgs& args, const void* bias, cudaStream_t stream) {
  using Element = CutlassType<T>;
  using Epilogue = cutlass::epilogue::fusion::LinCombPerColBias<Element, float, Element, void>;
  const int rows = static_cast<int>(args.rows), out = static_cast<int>(args.out_dim),
            in = static_cast<int>(args.in_dim);
  const GemmArgs gemm{args.x, args.weight, args.y, {args.count, rows}, rows, out, in};
  const auto tell = [&](auto& fusion) { fusion.bias_ptr = static_cast<const Element*>(bias); };
  if (takes_square_tiles(args.expected, out))
    return Gemm<Element, Element, RowMajor, ColumnMajor, SquareShape, Counted::kRows, Epilogue>::launch(
        gemm, stream, tell);
  return Gemm<Element, Element, RowMajor, ColumnMajor, SmallShape, Counted::kRows, Epilogue>::launch(
      gemm, stream, tell);
}

}  // namespace fathom::cuda
