// What the registrations of layer norms hand to their kernels: raw pointers and a stream.
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

/// Of x, or of its sum with a branch. `x`, `branch` (or null), `sum` (or null), `y`: [rows, dim]; `mean`,
/// `scale`: float32 [rows]; `weight`, `bias`: [dim] in float32, or with `narrow` in the type of x.
struct LayerNormArgs {
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

  /// Whether x alone is normed, with float32 parameters: what kernels without a residual sum do.
  bool is_plain() const { return branch == nullptr && sum == nullptr && places.quarter == 0 && !narrow; }
};

/// `sum`: what was normed; `grad`: of the norm; `grad_sum`: of the sum beside it, or null; `grad_x`: of the
/// sum as a whole; `grad_branch`: of a branch with a scale, or null; `partial`: float32 [blocks, 2, dim], the
/// sums of a block's rows for weight and bias.
struct LayerNormGradArgs {
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

  bool is_plain() const {
    return grad_sum == nullptr && grad_branch == nullptr && places.quarter == 0 && !narrow;
  }
};

/// Of rows that fit (norm_shape.h). Pointers have to lie at multiples of 16 bytes, those of weight and bias
/// as well, and rows of a map be fewer than 2³¹.
cudaError_t launch_layer_norm(ElementType type, const LayerNormArgs& args, cudaStream_t stream);
cudaError_t launch_layer_norm_grad(ElementType type, const LayerNormGradArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
