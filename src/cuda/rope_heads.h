// What the registration of rope_heads hands to its kernel: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// Some heads of all tokens, [B, heads, T, E] with dense rows of E and any other strides, in elements.
struct HeadsPlace {
  void* data;
  int64_t batch_stride;
  int64_t head_stride;
  int64_t token_stride;
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
  int64_t head_size;  ///< E
  bool skips_values;  ///< they are not brought over: they lie where they are to be
};

/// Whether vectors of so many elements, 16 bytes, may begin at all multiples of it in every head.
inline bool heads_take_vectors(const RopeHeadsArgs& args, int64_t width) {
  for (const HeadsPlace& place : {args.q, args.k, args.v})
    if (!are_aligned16({place.data}) || place.batch_stride % width != 0 || place.head_stride % width != 0 ||
        place.token_stride % width != 0)
      return false;
  return true;
}

/// From `packed` to heads, of which queries and keys are turned by their angles. Heads may be the places in
/// `packed` that they are taken from.
/// REQUIRES 1 ≤ rows < 2³¹, 1 ≤ (heads + 2 · kv_heads) · E < 2³⁰, E even.
cudaError_t launch_rope_heads(ElementType type, const RopeHeadsArgs& args, cudaStream_t stream);
/// From heads, which are only read, to `packed`, turned back.
cudaError_t launch_rope_heads_grad(ElementType type, const RopeHeadsArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
