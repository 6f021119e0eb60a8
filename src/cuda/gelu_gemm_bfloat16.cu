#include <cuda_bf16.h>

#include "cuda/gelu_gemm.cuh"

template struct fathom::cuda::GeluGemm<__nv_bfloat16>;
