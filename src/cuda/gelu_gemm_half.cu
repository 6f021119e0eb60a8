#include <cuda_fp16.h>

#include "cuda/gelu_gemm.cuh"

template struct fathom::cuda::GeluGemm<__half>;
