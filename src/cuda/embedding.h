// What the registration of tables' rows hands to their kernels: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// `weight`: [vocabulary, dim]; `ids`: [count]; `rows`: [count, dim].
struct EmbeddingRowsArgs {
  const void* weight;
  const int64_t* ids;
  void* rows;
  int64_t count;
  int64_t vocabulary;
  int64_t dim;
};

/// `rows` are of the weight's type or narrower: float, half or bfloat16 from float.
cudaError_t launch_embedding_rows(ElementType weight, ElementType rows, const EmbeddingRowsArgs& args,
                                  cudaStream_t stream);

/// Places of rows, to be sorted by their ids: [count] each, `sorted` apart from `unsorted`; an id in the
/// upper 32 bits, `vocabulary` for what is none, and a place in the lower.
struct RowOrder {
  const int64_t* ids;
  uint64_t* unsorted;
  uint64_t* sorted;
  int64_t count;
  int64_t vocabulary;
};

/// Bytes that `launch_row_order` needs for itself.
cudaError_t row_order_bytes(const RowOrder& order, size_t& bytes);
/// Fills `unsorted` and `sorted`: rows of one id in the order of their places. `count` and `vocabulary` are
/// below 2³¹.
cudaError_t launch_row_order(const RowOrder& order, void* memory, size_t bytes, cudaStream_t stream);

/// `sorted`: a `RowOrder`'s; `rows`: [count, dim]; `sum`: float32 [vocabulary, dim], to which they are added;
/// `parts`: float32 [row_sum_chunks(count), 2, dim].
struct RowSumArgs {
  const uint64_t* sorted;
  const void* rows;
  float* sum;
  float* parts;
  int64_t count;
  int64_t vocabulary;
  int64_t dim;
};

int64_t row_sum_chunks(int64_t count);
/// `type`: of the rows, float, half or bfloat16.
cudaError_t launch_row_sums(ElementType type, const RowSumArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
