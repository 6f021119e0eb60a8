#include "cuda/half_gemm.cuh"

cudaError_t fathom::cuda::half_gemm_to_half(const HalfGemmArgs& args, cudaStream_t stream) {
  return run_half_gemm<cutlass::half_t>(args, stream);
}
