// What the registration of row kernels' backward passes hands to them: raw pointers and a stream. See
// kernels/counted_gradients.h for the meaning of each. The rows are the active ones alone.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/counted_rows.h"
#include "cuda/element_type.h"

namespace fathom::cuda {

/// What a token costs is its multiplier times `share`, or times its sequence's of `sequence_share`. Without
/// `score`, `grad_score` takes what each row, active or explored, brought: ⟨grad, part + added⟩.
struct MergeGradArgs {
  const int32_t* slot;
  const int32_t* count;
  const void* grad;             ///< [places, dim]
  const void* part;             ///< [rows, dim], or null
  const void* added;            ///< [rows, dim]
  void* grad_rows;              ///< [rows, dim]
  const float* score;           ///< [places], or null
  const double* multiplier;     ///< or null
  const float* sequence_share;  ///< or null
  float share;
  float explored_weight;
  float* grad_score;  ///< [places]; or [rows]; or null: part and added are not read
  int64_t tokens;     ///< of a sequence
  int64_t places;
  int64_t dim;
};

/// `x`, `grad_x`: of rows, or, where `place` is there, of places, of which those of rows alone are read and
/// written; `partial`: float32 [blocks, dim], sums of a block's rows for the weight.
struct RowNormGradArgs {
  const int32_t* place;  ///< or null
  const int32_t* count;
  const void* grad;  ///< [rows, dim]
  const void* x;
  const void* weight;
  const void* added;  ///< [rows, dim]
  void* grad_x;
  float* partial;
  int64_t dim;
  int64_t blocks;
  float eps;
};

struct RowSwigluGradArgs {
  RowsArgs rows;
  const void* grad;     ///< [rows, inner]
  const void* gate_up;  ///< [rows, 2 · inner]
  void* grad_gate_up;
  int64_t inner;
};

struct RowRopeGradArgs {
  RowsArgs rows;
  const void* grad_q;  ///< [rows, heads, head_size]
  const void* grad_k;  ///< [rows, kv_heads, head_size]
  const void* grad_v;
  const float* cos;  ///< [tokens, head_size / 2]
  const float* sin;
  void* grad_qkv;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_size;
};

/// Blocks of a norm's backward pass, of rows of `dim`: the same for the same sizes.
int64_t row_norm_grad_blocks(int64_t places, int64_t dim);
/// All as in counted_rows.h.
cudaError_t launch_merge_grad(ElementType type, const MergeGradArgs& args, cudaStream_t stream);
cudaError_t launch_row_norm_grad(ElementType type, const RowNormGradArgs& args, cudaStream_t stream);
cudaError_t launch_row_swiglu_grad(ElementType type, const RowSwigluGradArgs& args, cudaStream_t stream);
cudaError_t launch_row_rope_grad(ElementType type, const RowRopeGradArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
