// What the registrations of residual_layer_norm and merged_layer_norm hand to their kernels: raw pointers and
// a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// Where the vectors of a row lie in x, branch and the gradient of both.
struct RowPlaces {
  int quarter = 0;  ///< 0: rows stand behind one another; else a row is four neighbours of a map, of so many
                    ///< vectors each
  int half_width = 0;  ///< of that map: rows a line of them
};

/// What a branch is multiplied with: a number of its type for so many neighbouring rows each; null: 1.
struct BranchScale {
  const void* values = nullptr;
  int64_t rows = 1;
};

/// `x`, `branch` (or null), `sum` (or null), `y`: [rows, dim]; `mean`, `scale`: float32 [rows]; `weight`,
/// `bias`: [dim] in float32, or with `narrow` in the type of x.
struct ResidualLayerNormArgs {
  const void* x = nullptr;
  const void* branch = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  void* sum = nullptr;
  void* y = nullptr;
  float* mean = nullptr;
  float* scale = nullptr;
  int64_t rows = 0;
  int64_t dim = 0;
  float eps = 0;
  bool narrow = false;
  BranchScale branch_scale = {};
  RowPlaces places = {};
};

/// `grad_sum`: that of the sum beside the norm's, or null; `grad_x`: of the sum as a whole; `grad_branch`: of
/// a branch with a scale, or null; `partial`: float32 [blocks, 2, dim], the sums of a block's rows for weight
/// and bias.
struct ResidualLayerNormGradArgs {
  const void* grad_sum = nullptr;
  const void* grad = nullptr;
  const void* sum = nullptr;
  const void* weight = nullptr;
  const float* mean = nullptr;
  const float* scale = nullptr;
  void* grad_x = nullptr;
  void* grad_branch = nullptr;
  float* partial = nullptr;
  int64_t rows = 0;
  int64_t dim = 0;
  int64_t blocks = 0;
  bool narrow = false;
  BranchScale branch_scale = {};
  RowPlaces places = {};
};

/// Of rows that fit (norm_shape.h). Pointers have to lie at multiples of 16 bytes, those of weight and bias
/// as well, and rows of a map be fewer than 2³¹.
cudaError_t launch_residual_layer_norm(ElementType type, const ResidualLayerNormArgs& args,
                                       cudaStream_t stream);
cudaError_t launch_residual_layer_norm_grad(ElementType type, const ResidualLayerNormGradArgs& args,
                                            cudaStream_t stream);

}  // namespace fathom::cuda
