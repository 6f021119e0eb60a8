// What the registration of fp8_tiles hands to its kernel: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

enum class Fp8Format { kE4M3, kE5M2 };

/// Room for one form of the matrix; null: it is not wanted.
struct Fp8Room {
  uint8_t* values = nullptr;
  float* scales = nullptr;
  bool is_by_row = false;  ///< how scales lie (`TileScales`)
};

/// Of a matrix [rows, columns], both multiples of 16. `beyond`: null, or what is added to.
struct Fp8Result {
  Fp8Room plain, turned;
  unsigned long long* beyond;
  int64_t rows;
  int64_t columns;
};

/// `x`: dense [rows, columns] in vectors of 8.
struct Fp8TilesArgs {
  const void* x;
  Fp8Result result;
};

/// SwiGLU, or with `grad` its gradient by both inputs: bfloat16 [rows, 2 inner] and [rows, inner] become
/// [rows, inner], or [rows, 2 inner], where `inner` is a multiple of 128.
struct Fp8SwigluArgs {
  const void* gate_up;
  const void* grad;
  int64_t inner;
  Fp8Result result;
};

/// `type`: float or bfloat16.
cudaError_t launch_fp8_tiles(ElementType type, Fp8Format format, const Fp8TilesArgs& args,
                             cudaStream_t stream);
/// In E4M3.
cudaError_t launch_fp8_swiglu(const Fp8SwigluArgs& args, cudaStream_t stream);
cudaError_t launch_fp8_swiglu_grad(Fp8Format format, const Fp8SwigluArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
