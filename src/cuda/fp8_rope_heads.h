// What the registration of rope_heads hands to the kernel that writes its gradient in FP8: raw pointers and a
// stream.
#pragma once

#include "cuda/fp8_tiles.h"
#include "cuda/rope_heads.h"

namespace fathom::cuda {

/// `heads.packed` is not touched: `result` is what it would be, in FP8.
struct Fp8RopeHeadsArgs {
  RopeHeadsArgs heads;
  Fp8Result result;
};

/// Bfloat16 heads, which are only read. REQUIRES a head size that is a multiple of 16, heads and angles in
/// vectors of 8.
cudaError_t launch_fp8_rope_heads_grad(Fp8Format format, const Fp8RopeHeadsArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
