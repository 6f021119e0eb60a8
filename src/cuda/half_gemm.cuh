// half_gemm.h with CUTLASS: the persistent kernels of hopper_gemm.cuh with all rows, whose epilogue adds a
// bias in float32 and rounds once.
#pragma once

#include <limits>

#include "cuda/half_gemm.h"
#include "cuda/hopper_gemm.cuh"
#include "kernels/half_range.h"

namespace fathom::cuda {

/// Sums beyond `largest` become it, with their sign, and are counted.
struct HalfEnds {
  float largest;
  int64_t* saturated;
};

/// An activation as CUTLASS's epilogues take one with arguments. NaN stays.
template <typename T>
struct WithinEnds {
  using Arguments = HalfEnds;
};
template <int kCount>
struct WithinEnds<cutlass::Array<float, kCount>> {
  using Arguments = HalfEnds;
  using Sums = cutlass::Array<float, kCount>;
  __device__ Sums operator()(const Sums& sums, const HalfEnds& ends) const {
    Sums result = sums;
    int beyond = 0;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < kCount; ++i)
      if (fabsf(sums[i]) > ends.largest) {
        result[i] = copysignf(ends.largest, sums[i]);
        ++beyond;
      }
    if (beyond > 0 && ends.saturated != nullptr)
      atomicAdd(reinterpret_cast<unsigned long long*>(ends.saturated),
                static_cast<unsigned long long>(beyond));
    return result;
  }
};

/// With a bias in float32, or none.
template <typename Out>
using BiasEpilogue = cutlass::epilogue::fusion::LinCombPerColBias<Out, float, float, void>;
template <typename Out>
using EndedBiasEpilogue =
    cutlass::epilogue::fusion::LinCombPerColBiasEltAct<WithinEnds, Out, float, float, void>;

/// `LayoutB` as in Gemm.
template <typename Out, typename LayoutB, typename Shape>
cudaError_t run_half_gemm(const HalfGemmArgs& args, cudaStream_t stream) {
  constexpr bool kEnds = std::is_same_v<Out, cutlass::half_t>;
  using Fusion = std::conditional_t<kEnds, EndedBiasEpilogue<Out>, BiasEpilogue<Out>>;
  const int rows = static_cast<int>(args.rows);
  const GemmArgs gemm{args.a,
                      args.b,
                      args.out,
                      {nullptr, rows},
                      rows,
                      static_cast<int>(args.columns),
                      static_cast<int>(args.reduced)};
  const auto tell = [&](auto& fusion) {
    fusion.bias_ptr = args.bias;
    if constexpr (kEnds)
      fusion.activation = {args.saturates ? kernels::kLargestHalf : std::numeric_limits<float>::infinity(),
                           args.saturated};
  };
  return Gemm<cutlass::half_t, Out, RowMajor, LayoutB, Shape, Counted::kRows, Fusion>::launch(gemm, stream,
                                                                                              tell);
}

template <typename Out>
cudaError_t run_half_gemm(const HalfGemmArgs& args, cudaStream_t stream) {
  return with_best_shape<256>(args.rows, args.columns, args.reduced, [&](auto shape) {
    using Shape = decltype(shape);
    return args.is_turned ? run_half_gemm<Out, ColumnMajor, Shape>(args, stream)
                          : run_half_gemm<Out, RowMajor, Shape>(args, stream);
  });
}

}  // namespace fathom::cuda
