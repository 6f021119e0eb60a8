// Attention within sequences of packed rows, on Hopper: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>
#include <vector_types.h>

#include <cstdint>

#include "cuda/element_type.h"
#include "cuda/ragged_offsets.h"

namespace fathom::cuda {

/// Rows of queries, keys or values: their heads lie one behind the other.
struct RowsOfHeads {
  const void* begin = nullptr;
  int64_t stride = 0;  ///< elements from one row to the next
};

/// Sequences lie one behind the other in all of them.
struct FlashAttentionArgs {
  RowsOfHeads q, k, v;
  const int32_t* start = nullptr;  ///< [sequences + 1]: rows before each, and all; null: `tokens` each
  void* y = nullptr;               ///< [rows, heads · head_size]; rows of no sequence stay as they are
  float* sums = nullptr;           ///< logarithms of sums of exponentials, [rows, heads], or, where
                                   ///< `start` is null, [sequences, heads, tokens]
  RaggedOffsetArgs offsets;        ///< written beside, unless its `length` is null
  int64_t rows = 0;
  int64_t sequences = 0;
  int64_t tokens = 0;  ///< that a sequence may have
  int64_t heads = 0;
  int64_t kv_heads = 0;  ///< a divisor of `heads`
  int64_t head_size = 0;
  int64_t together = 0;  ///< heads of sequences whose blocks run at the same time: the launcher's choice
  bool causal = true;  ///< rows look at those before them and themselves; otherwise at all of their sequence
};

/// Heads of 64 and 128 elements of 16 bits, in rows of vectors.
bool flash_attention_fits(ElementType type, const FlashAttentionArgs& args);

/// Dao et al. 2022 (arXiv:2205.14135), Shah et al. 2024 (arXiv:2407.08608). The same bits in every run.
cudaError_t launch_flash_attention(ElementType type, const FlashAttentionArgs& args, cudaStream_t stream);

/// Rows of gradients.
struct GradientRows {
  void* begin = nullptr;
  int64_t stride = 0;  ///< elements from one row to the next
};

struct FlashAttentionGradArgs {
  FlashAttentionArgs pass;  ///< as it was made: `y` and `sums` are read
  RowsOfHeads grad;         ///< of y
  float2* terms = nullptr;  ///< [heads, rows], used in between: a query's sum, to base 2, and ⟨grad, y⟩
  GradientRows q, k, v;     ///< written; rows of no sequence stay as they are
};

/// Heads of 64 elements of 16 bits, in rows of vectors.
bool flash_attention_grad_fits(ElementType type, const FlashAttentionGradArgs& args);

/// Two kernels, of which the second takes what the first found out of each query: gradients by queries, and
/// by keys and values. Each multiplies scores anew; nothing is added up by several blocks, so the bits are
/// the same in every run.
cudaError_t launch_flash_attention_grad(ElementType type, const FlashAttentionGradArgs& args,
                                        cudaStream_t stream);

}  // namespace fathom::cuda
