// What the registration of column sums hands to its kernel: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// `x`: [rows, dim], dim a multiple of a 16-byte vector; `partial`: float32 [blocks, dim]. No more rows than
/// `count` says, if there is one.
struct ColumnSumArgs {
  const void* x;
  float* partial;
  int64_t rows;
  int64_t dim;
  int64_t blocks;
  const int32_t* count = nullptr;
};

/// The same for the same sizes, so that sums do not change from run to run.
int64_t column_sum_blocks(ElementType type, int64_t rows, int64_t dim);
/// `type`: float, half or bfloat16.
cudaError_t launch_column_sum(ElementType type, const ColumnSumArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
