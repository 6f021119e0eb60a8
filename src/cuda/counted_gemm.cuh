// CountedGemm: which tiles and which layouts the products with counted rows take.
#pragma once

#include "cuda/counted_gemm.h"
#include "cuda/hopper_gemm.cuh"
#include "cuda/wide_product.h"

namespace fathom::cuda {

template <typename T>
cudaError_t CountedGemm<T>::product(const CountedProductArgs& args, cudaStream_t stream) {
  using Element = CutlassType<T>;
  const int rows = static_cast<int>(args.rows), out = static_cast<int>(args.out_dim),
            in = static_cast<int>(args.in_dim);
  if (const int columns = wide_columns(args.expected, in, out)) {
    constexpr auto kType = std::is_same_v<T, __half> ? ElementType::kHalf : ElementType::kBFloat16;
    const WideProductArgs wide = {args.x,    args.weight, args.y,      args.count,
                                  args.rows, args.in_dim, args.out_dim};
    return launch_wide_product(kType, wide, columns, stream);
  }
  const GemmArgs gemm{args.x, args.weight, args.y, {args.count, rows}, rows, out, in};
  return Gemm<Element, Element, RowMajor, ColumnMajor, SmallShape, Counted::kRows>::launch(gemm, stream);
}

/// Weights lie along the columns here, in atoms of 64: 208 would be read by eighths of them.
template <typename T>
cudaError_t CountedGemm<T>::input_grad(const CountedInputGradArgs& args, cudaStream_t stream) {
  using Element = CutlassType<T>;
  const int rows = static_cast<int>(args.rows), out = static_cast<int>(args.out_dim),
            in = static_cast<int>(args.in_dim);
  const GemmArgs gemm{args.grad, args.weight, args.grad_x, {args.count, rows}, rows, in, out};
  return with_best_shape<192, 256>(args.expected, in, out, [&](auto shape) {
    return Gemm<Element, Element, RowMajor, RowMajor, decltype(shape), Counted::kRows>::launch(gemm, stream);
  });
}

template <typename T>
cudaError_t CountedGemm<T>::weight_grad(const CountedWeightGradArgs& args, const WeightGradTiles& tiles,
                                        cudaStream_t stream) {
  using Element = CutlassType<T>;
  const int rows = static_cast<int>(args.rows), out = static_cast<int>(args.out_dim),
            in = static_cast<int>(args.in_dim);
  const RowCount count{args.count, rows};
  void* to = tiles.splits > 1 ? args.workspace : args.grad_weight;
  const GemmArgs plain{args.grad, args.x, to, count, out, in, rows, tiles.splits};
  const GemmArgs turned{args.x, args.grad, to, count, in, out, rows, tiles.splits};
  const auto run = [&](auto sum) {
    using Out = decltype(sum);
    constexpr auto kCounted = Counted::kReduction;
    using Plain = PlainEpilogue<Out>;
    if (tiles.columns == kSquareColumns)
      return Gemm<Element, Out, ColumnMajor, RowMajor, TurnShape<kSquareColumns>, kCounted>::launch(plain,
                                                                                                    stream);
    using Wide = TurnShape<kWideColumns>;
    if (!tiles.turned)
      return Gemm<Element, Out, ColumnMajor, RowMajor, Wide, kCounted>::launch(plain, stream);
    return Gemm<Element, Out, ColumnMajor, RowMajor, Wide, kCounted, Plain, ColumnMajor>::launch(turned,
                                                                                                 stream);
  };
  const bool in_float = tiles.splits > 1 || args.grad_weight_type == ElementType::kFloat;
  return in_float ? run(float()) : run(Element());
}

}  // namespace fathom::cuda
