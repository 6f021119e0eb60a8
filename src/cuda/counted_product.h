// Matrix products whose number of rows is known on the device only: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

// All matrices are row-major and contiguous, begin at multiples of 16 bytes and do not overlap. `rows` is the
// room in x and y, which the host knows; `count` is read by the kernel, so the host never waits for it:
// min(max(*count, 0), rows) rows are taken, all if it is nullptr. The time is proportional to the rows taken,
// up to whole waves of tiles. `expected` rows, from 1 to `rows`, are what the kernel is chosen for. Rows
// after them may hold anything, NaN as well; in an output they are written with anything or left. Sums are
// made in float32 and in an order that depends on the sizes, the expected rows and the count alone.

/// y = x weightᵀ. `x`: [rows, in_dim]; `weight`: [out_dim, in_dim]; `y`: [rows, out_dim]; all of one type.
struct CountedProductArgs {
  const void* x;
  const void* weight;
  void* y;
  const int32_t* count;
  int64_t rows;
  int64_t expected;
  int64_t in_dim;
  int64_t out_dim;
};

/// grad_x = grad weight. `grad`: [rows, out_dim]; `weight`: [out_dim, in_dim]; `grad_x`: [rows, in_dim].
struct CountedInputGradArgs {
  const void* grad;
  const void* weight;
  void* grad_x;
  const int32_t* count;
  int64_t rows;
  int64_t expected;
  int64_t in_dim;
  int64_t out_dim;
};

/// grad_weight = gradᵀ x over the rows taken, zeros if there are none. `grad`: [rows, out_dim];
/// `x`: [rows, in_dim]; `grad_weight`: [out_dim, in_dim], of the operands' type or float32. `workspace`: as
/// many bytes as counted_weight_grad_workspace_bytes says, aligned like the matrices; nullptr if that is 0.
struct CountedWeightGradArgs {
  const void* grad;
  const void* x;
  void* grad_weight;
  const int32_t* count;
  int64_t rows;
  int64_t expected;
  int64_t in_dim;
  int64_t out_dim;
  ElementType grad_weight_type;
  void* workspace;
};

/// Whether the kernels take these sizes: half or bfloat16, both dimensions multiples of 8 elements (16
/// bytes), and no size beyond 2^30. They need a card of compute capability 9.0 (Hopper).
bool counted_product_fits(ElementType type, int64_t rows, int64_t in_dim, int64_t out_dim);
/// A long reduction for a small matrix is divided among blocks, whose sums are kept in the workspace.
int64_t counted_weight_grad_workspace_bytes(int64_t expected, int64_t in_dim, int64_t out_dim);
// What does not fit is answered with cudaErrorInvalidValue. With no rows nothing is launched, except that
// grad_weight is cleared.
cudaError_t launch_counted_product(ElementType type, const CountedProductArgs& args, cudaStream_t stream);
cudaError_t launch_counted_input_grad(ElementType type, const CountedInputGradArgs& args,
                                      cudaStream_t stream);
cudaError_t launch_counted_weight_grad(ElementType type, const CountedWeightGradArgs& args,
                                       cudaStream_t stream);

}  // namespace fathom::cuda
