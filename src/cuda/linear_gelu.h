// What the registration of linear_gelu hands to its kernels: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// y = GELU(inner), inner = x weightᵀ + bias, summed in float32. `x`: [rows, in_dim]; `weight`: [out_dim,
/// in_dim]; `bias`: [out_dim]; `y`, `inner` (or null): [rows, out_dim]; all of one type, contiguous, at
/// multiples of 16 bytes. y does not see how inner is rounded. Of `count`, if there is one, and `expected` as
/// in counted_product.h.
struct LinearGeluArgs {
  const void* x;
  const void* weight;
  const void* bias;
  void* y;
  void* inner;
  int64_t rows;
  int64_t in_dim;
  int64_t out_dim;
  const int32_t* count = nullptr;
  int64_t expected = 0;
};

/// `grad`, `x`, `grad_x`: [rows, dim], dim a multiple of a 16-byte vector; `partial`: float32 [blocks, dim],
/// the sums of grad_x's columns over a block's rows. No more rows than `count` says, if there is one.
struct GeluGradArgs {
  const void* grad;
  const void* x;
  void* grad_x;
  float* partial;
  int64_t rows;
  int64_t dim;
  int64_t blocks;
  const int32_t* count = nullptr;
};

/// grad_inner = (grad weight) GELU'(inner), summed in float32: what a gradient behind a product with
/// `weight`ᵀ of GELU(inner) becomes. `grad`: [rows, depth]; `weight`: [depth, columns]; `inner`,
/// `grad_inner`: [rows, columns]; all of one type, contiguous, at multiples of 16 bytes. `partial`: float32
/// [blocks, columns], sums of grad_inner's columns, of the rows that are counted. Of `count` and `expected`
/// as above.
struct GeluProductGradArgs {
  const void* grad;
  const void* weight;
  const void* inner;
  void* grad_inner;
  float* partial;
  int64_t rows;
  int64_t depth;
  int64_t columns;
  const int32_t* count = nullptr;
  int64_t expected = 0;
};

/// Whether the product takes these sizes: as counted_product_fits, with a row at least, on Hopper alone.
bool linear_gelu_fits(ElementType type, int64_t rows, int64_t in_dim, int64_t out_dim);
cudaError_t launch_linear_gelu(ElementType type, const LinearGeluArgs& args, cudaStream_t stream);
/// The same for sizes that have been looked at: gelu_product.cu.
cudaError_t launch_gelu_product(ElementType type, const LinearGeluArgs& args, cudaStream_t stream);

/// Of the sizes alone, as below. What fits is as for the product above.
int64_t gelu_product_grad_blocks(const GeluProductGradArgs& args);
cudaError_t launch_gelu_product_grad(ElementType type, const GeluProductGradArgs& args, cudaStream_t stream);

/// The same for the same sizes, so that sums do not change from run to run.
int64_t gelu_grad_blocks(ElementType type, int64_t rows, int64_t dim);
/// `type`: float, half or bfloat16.
cudaError_t launch_gelu_grad(ElementType type, const GeluGradArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
