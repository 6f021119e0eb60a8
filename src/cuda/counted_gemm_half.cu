#include <cuda_fp16.h>

#include "cuda/counted_gemm.cuh"

template struct fathom::cuda::CountedGemm<__half>;
