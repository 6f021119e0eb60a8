#include <cuda_fp16.h>

#include "cuda/bias_gemm.cuh"

template struct fathom::cuda::BiasGemm<__half>;
