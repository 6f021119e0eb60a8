#include <cuda_bf16.h>

#include "cuda/counted_gemm.cuh"

template struct fathom::cuda::CountedGemm<__nv_bfloat16>;
