// What the registration of rope_heads hands to its kernel: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// Some heads of all tokens, [B, heads, T, E] with dense rows of E and any other strides, in elements.
struct HeadsPlace {
  void* data = nullptr;
  int64_t batch_stride = 0;
  int64_t head_stride = 0;
  int64_t token_stride = 0;
};

/// `packed`: [B · T, heads + 2 · kv_heads, E], queries first; `cos`, `sin`: [T, E/2].
struct RopeHeadsArgs {
  void* packed;
  HeadsPlace q;
  HeadsPlace k;
  HeadsPlace v;
  const float* cos;
  const float* sin;
  int64_t rows;  ///< B · T
  int64_t tokens;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_size;       ///< E
  HeadsPlace kept_k = {};  ///< or nothing: keys and values go there as well
  HeadsPlace kept_v = {};
};

/// From `packed` to heads, of which queries and keys are turned by their angles.
/// REQUIRES 1 ≤ rows < 2³¹, 1 ≤ (heads + 2 · kv_heads) · E < 2³⁰, E even.
cudaError_t launch_rope_heads(ElementType type, const RopeHeadsArgs& args, cudaStream_t stream);
/// From heads, which are only read, to `packed`, turned back.
cudaError_t launch_rope_heads_grad(ElementType type, const RopeHeadsArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
