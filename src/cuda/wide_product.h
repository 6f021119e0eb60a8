// Products of counted rows in wide tiles: raw pointers and a stream. For Hopper alone.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// y = a weightᵀ. `a`: [rows, depth]; `weight`: [columns, depth]; `y`: [rows, columns]. Matrices and the
/// count as in counted_product.h, or without one.
struct WideProductArgs {
  const void* a;
  const void* weight;
  void* y;
  const int32_t* count;
  int64_t rows;
  int64_t depth;
  int64_t columns;
};

/// Columns of the tiles that are through first, if so many rows are taken; 0: there are too few for wide
/// ones.
int wide_columns(int64_t rows, int64_t depth, int64_t columns);
/// `tile_columns`: as `wide_columns` says. Sizes have been looked at.
cudaError_t launch_wide_product(ElementType type, const WideProductArgs& args, int tile_columns,
                                cudaStream_t stream);

/// The same of y = silu(a gateᵀ) · (a upᵀ), taken in float32 and rounded once: `weight` is [2 · columns,
/// depth], the gate's first.
int wide_swiglu_columns(int64_t rows, int64_t depth, int64_t columns);
cudaError_t launch_wide_swiglu(ElementType type, const WideProductArgs& args, int tile_columns,
                               cudaStream_t stream);

}  // namespace fathom::cuda
