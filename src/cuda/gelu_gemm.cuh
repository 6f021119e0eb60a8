// GeluGemm with CUTLASS: bias and GELU where a tile's sums leave the registers. Two warp groups work in turn,
// so that one's GELU and stores run beside the other's products.
#pragma once

#include "cuda/gelu_gemm.h"
#include "cuda/square_tiles.cuh"

namespace fathom::cuda {

/// GELU(sum + bias) with the exact GELU, in float32; the bias is of Out's type.
template <typename Out>
using BiasGeluEpilogue = cutlass::epilogue::fusion::LinCombPerColBiasEltAct<cutlass::epilogue::thread::GELU,
                                                                            Out, float, Out, void>;
/// The same, which also writes sum + bias in Out's type.
template <typename Out>
using KeptGeluEpilogue = cutlass::epilogue::fusion::LinCombPerColBiasEltActAux<
    cutlass::layout::RowMajor, cutlass::epilogue::thread::GELU, Out, float, Out, Out, void>;

template <typename Element, typename Epilogue>
cudaError_t run_gelu_gemm(const LinearGeluArgs& args, cudaStream_t stream) {
  const int rows = static_cast<int>(args.rows), out = static_cast<int>(args.out_dim),
            in = static_cast<int>(args.in_dim);
  const GemmArgs gemm{args.x, args.weight, args.y, {args.count, rows}, rows, out, in};
  const auto tell = [&](auto& fusion) {
    fusion.bias_ptr = static_cast<const Element*>(args.bias);
    if constexpr (Epilogue::IsAuxOutSupported) {
      fusion.aux_ptr = static_cast<Element*>(args.inner);
      fusion.dAux = stride_of<std::decay_t<decltype(fusion.dAux)>>(rows, out);
    }
  };
  if (takes_square_tiles(args.expected > 0 ? args.expected : rows, out))
    return Gemm<Element, Element, RowMajor, ColumnMajor, SquareShape, Counted::kRows, Epilogue>::launch(
        gemm, stream, tell);
  return Gemm<Element, Element, RowMajor, ColumnMajor, SmallShape, Counted::kRows, Epilogue>::launch(
      gemm, stream, tell);
}

template <typename T>
cudaError_t GeluGemm<T>::run(const LinearGeluArgs& args, cudaStream_t stream) {
  using Element = CutlassType<T>;
  return args.inner == nullptr ? run_gelu_gemm<Element, BiasGeluEpilogue<Element>>(args, stream)
                               : run_gelu_gemm<Element, KeptGeluEpilogue<Element>>(args, stream);
}

}  // namespace fathom::cuda
