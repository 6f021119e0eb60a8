// Which tiles a product takes whose warp groups work in turn.
#pragma once

#include "cuda/hopper_gemm.cuh"

namespace fathom::cuda {

/// Square ones, not small ones, where that takes no longer, since they read fewer operands: one takes as long
/// as two small ones.
inline bool takes_square_tiles(int64_t rows, int64_t columns) {
  return 2 * pair_turns(rows, columns, 128, 128) <= pair_turns(rows, columns, 64, 128);
}

}  // namespace fathom::cuda
