// What the registration of encoders' layers over counted rows hands to their kernels: raw pointers and a
// stream. See kernels/counted_layers.h and counted_windows.h for the meaning of each.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/counted_rows.h"
#include "cuda/element_type.h"

namespace fathom::cuda {

struct GatheredNormArgs {
  RowsArgs rows;
  const void* x;        ///< [places, dim]
  const float* weight;  ///< [dim]
  const float* bias;
  void* y;  ///< [rows, dim]
  int64_t dim;
  float eps;
};

/// `grad_x` [places, dim], to which gradients are added at the rows' places; `partial`: float32 [blocks, 2,
/// dim], sums of a block's rows for weight and bias.
struct GatheredNormGradArgs {
  RowsArgs rows;
  const void* grad;  ///< [rows, dim]
  const void* x;
  const float* weight;
  void* grad_x;
  float* partial;
  int64_t dim;
  int64_t blocks;
  float eps;
};

/// Windows of `side` that divide a map of `height` × `width`, shifted by `shift`.
struct WindowRowsArgs {
  const int32_t* window_slot;   ///< [images · windows]
  const int32_t* window_start;  ///< [images + 1]
  const int32_t* window_used;   ///< of all windows that have rows
  int32_t* place;               ///< [images · height · width]
  int32_t* slot;                ///< likewise
  int32_t* border;              ///< [images + 2]
  int64_t images;
  int height;
  int width;
  int side;
  int shift;
};

/// Means of windows, as above: `x` [images, height, width, dim] → `y` [images, windows, dim].
struct WindowMeanArgs {
  const void* x;
  void* y;
  int64_t images;
  int64_t dim;
  int height;
  int width;
  int side;
  int shift;
};

struct WindowScoreGradArgs {
  const int32_t* slot;    ///< [images · windows]
  const int32_t* active;  ///< how many windows are
  const float* brought;   ///< [windows · places], of rows
  const float* score;     ///< [images · windows]
  const double* multiplier;
  float share;
  float explored_weight;
  float* grad_score;
  int64_t windows;  ///< of all images
  int places;
};

/// Whether a row's vectors fit: rows of half or bfloat16.
bool gathered_norm_fits(ElementType type, int64_t dim);
/// Of a norm's backward pass: the same for the same sizes.
int64_t gathered_norm_blocks(ElementType type, int64_t rows, int64_t dim);
cudaError_t launch_gathered_norm(ElementType type, const GatheredNormArgs& args, cudaStream_t stream);
cudaError_t launch_gathered_norm_grad(ElementType type, const GatheredNormGradArgs& args,
                                      cudaStream_t stream);
cudaError_t launch_window_rows(const WindowRowsArgs& args, cudaStream_t stream);
cudaError_t launch_window_means(ElementType type, const WindowMeanArgs& args, cudaStream_t stream);
cudaError_t launch_window_score_grad(const WindowScoreGradArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
