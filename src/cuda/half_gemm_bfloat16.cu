#include "cuda/half_gemm.cuh"

cudaError_t fathom::cuda::half_gemm_to_bfloat16(const HalfGemmArgs& args, cudaStream_t stream) {
  return run_half_gemm<cutlass::bfloat16_t>(args, stream);
}
