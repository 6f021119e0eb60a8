#include <cuda_bf16.h>

#include "cuda/bias_gemm.cuh"

template struct fathom::cuda::BiasGemm<__nv_bfloat16>;
