// What the registration of row kernels hands to them: raw pointers and a stream. The number of rows in use is
// the last of `start`, read on the device. See kernels/counted_rows.h for the meaning of each.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// The rows of a batch of `sequences` × `tokens`.
struct RowsArgs {
  const int32_t* place;
  const int32_t* start;  ///< [sequences + 1]
  int64_t sequences;
  int64_t tokens;
};

/// `y`: float32 or undefined; `sums`: what is normed, where `added` is there.
struct RowNormArgs {
  RowsArgs rows;
  const void* x;      ///< [sequences · tokens, dim]
  const void* added;  ///< [rows, dim], or null
  const void* weight;
  void* sums;
  void* y;
  int64_t dim;
  float eps;
};

struct RowRopeArgs {
  RowsArgs rows;
  void* qkv;
  const float* cos;  ///< [tokens, head_size / 2]
  const float* sin;
  void* keys;  ///< [sequences, kv_heads, capacity, head_size], or null
  void* values;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_size;
  int64_t capacity;
};

struct RowSwigluArgs {
  RowsArgs rows;
  const void* gate_up;  ///< [rows, 2 · inner]
  void* y;              ///< [rows, inner]
  int64_t inner;
};

struct RowDropoutArgs {
  RowsArgs rows;
  const void* x;
  void* y;
  const int64_t* key;  ///< [sequences]
  int64_t dim;
  int64_t stream;               ///< of dropout by tokens; that by samples has the next
  uint32_t threshold;           ///< an element stays where its bits are at least this
  uint32_t sequence_threshold;  ///< likewise all of a sequence's
  float scale;
  float sequence_scale;
};

/// Explored rows look at the active ones of their sequence, with `causal` at those before them, and
/// themselves.
struct ExploredAttentionArgs {
  RowsArgs rows;
  const int32_t* used;  ///< the number of all rows
  const void* qkv;      ///< [rows, (heads + 2 · kv_heads) · head_size]
  void* y;              ///< [rows, heads · head_size]
  int64_t heads;
  int64_t kv_heads;
  int64_t head_size;  ///< at most 256
  bool causal;
};

/// `y` may be `x`; without `h` it is what x holds at the rows' places.
struct MergeRowsArgs {
  const int32_t* slot;
  const int32_t* count;
  const void* x;
  const void* h;
  const void* added;
  void* y;
  int64_t places;
  int64_t dim;
};

/// All: kHalf or kBFloat16, widths that are multiples of 8, pointers of 16 bytes. `dim` of norms: at most
/// 8,192.
cudaError_t launch_row_norm(ElementType type, const RowNormArgs& args, cudaStream_t stream);
cudaError_t launch_row_rope(ElementType type, const RowRopeArgs& args, cudaStream_t stream);
cudaError_t launch_row_swiglu(ElementType type, const RowSwigluArgs& args, cudaStream_t stream);
cudaError_t launch_row_dropout(ElementType type, const RowDropoutArgs& args, cudaStream_t stream);
cudaError_t launch_explored_attention(ElementType type, const ExploredAttentionArgs& args,
                                      cudaStream_t stream);
cudaError_t launch_merge_rows(ElementType type, const MergeRowsArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
