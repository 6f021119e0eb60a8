// What the registration of fp8_rms_norm hands to its kernels: raw pointers and a stream.
#pragma once

#include "cuda/fp8_tiles.h"

namespace fathom::cuda {

/// Blocks that share rows, a cluster; and tiles of a row that one may have.
constexpr int kFp8NormBlocks = 8, kFp8NormTiles = 2;
/// Widest rows, forward and backward.
constexpr int64_t kMostFp8NormColumns = int64_t{kFp8NormBlocks} * kFp8NormTiles * kFp8TileSide,
                  kMostFp8NormGradColumns = int64_t{kFp8NormBlocks} * kFp8TileSide;

/// Bfloat16 `x`, and `branch` or null: [rows, columns] of `result`, which becomes the norm of their sum.
/// `sum`: likewise, written with a branch; `weight`: float32 [columns], rounded to bfloat16 before it is
/// used; `scale`: float32 [rows].
struct Fp8NormArgs {
  const void* x;
  const void* branch;
  const float* weight;
  void* sum;
  float* scale;
  float eps;
  Fp8Result result;
};

/// `grad_sum`: that of the sum beside the norm's, or null; `grad_x`: of the sum as a whole, which `result`
/// is, too; `partial`: float32 [tiles of rows, columns], the sums of a tile's rows for the weight.
struct Fp8NormGradArgs {
  const void* grad_sum;
  const void* grad;
  const void* sum;
  const float* weight;
  const float* scale;
  void* grad_x;
  float* partial;
  Fp8Result result;
};

/// In E4M3. Pointers have to lie at multiples of 16 bytes.
cudaError_t launch_fp8_norm(const Fp8NormArgs& args, cudaStream_t stream);
cudaError_t launch_fp8_norm_grad(Fp8Format format, const Fp8NormGradArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
