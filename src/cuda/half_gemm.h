// Products of matrices in half on tensor cores: raw pointers and a stream. One function a type of results,
// each compiled in its own file.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace fathom::cuda {

/// out = a b + bias, summed in float32. `a`: [rows, reduced]; `b`: [reduced, columns], or with `is_turned`
/// [columns, reduced]; `bias`: float32 [columns], or null; `out`: [rows, columns]. All dense and at multiples
/// of 16 bytes; `reduced` and `columns` multiples of 8; 1 ≤ rows; no size beyond 2³⁰. For Hopper alone.
struct HalfGemmArgs {
  const void* a;
  const void* b;
  const float* bias;
  void* out;
  int64_t rows;
  int64_t columns;
  int64_t reduced;
  bool is_turned;
  bool saturates;      ///< of results in half: what they have no room for becomes the end of their range,
                       ///< otherwise infinity
  int64_t* saturated;  ///< to which such are added; or null
};

cudaError_t half_gemm_to_bfloat16(const HalfGemmArgs& args, cudaStream_t stream);
cudaError_t half_gemm_to_half(const HalfGemmArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
