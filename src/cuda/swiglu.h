// What the registration of SwiGLU hands to its kernels: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// `gate_up`: [rows, 2 · inner], the gate first; `y`: [rows, inner]. With `to_half`, of bfloat16, y is half,
/// and what saturates is added to `saturated`, unless that is null.
struct SwigluArgs {
  const void* gate_up;
  void* y;
  bool to_half;
  int64_t* saturated;
  int64_t rows;
  int64_t inner;
};

/// `grad`: [rows, inner]; `gate_up`, `grad_gate_up`: [rows, 2 · inner], the latter half with `to_half`, of
/// bfloat16.
struct SwigluGradArgs {
  const void* grad;
  const void* gate_up;
  void* grad_gate_up;
  bool to_half;
  int64_t rows;
  int64_t inner;
};

/// REQUIRES 1 ≤ rows, 1 ≤ inner < 2³⁰.
cudaError_t launch_swiglu(ElementType type, const SwigluArgs& args, cudaStream_t stream);
cudaError_t launch_swiglu_grad(ElementType type, const SwigluGradArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
