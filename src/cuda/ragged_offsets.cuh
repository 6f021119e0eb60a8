// What one thread writes of where sequences lie.
#pragma once

#include "cuda/ragged_offsets.h"

namespace fathom::cuda {

/// `place`: of a sequence, or the one behind the last.
__device__ inline void write_ragged_offsets(const RaggedOffsetArgs& args, int64_t place) {
  const int32_t start = args.start[place];
  if (place < args.sequences) args.length[place] = args.start[place + 1] - start;
  for (int tensor = 0; tensor < kRaggedTensors; ++tensor)
    args.offset[tensor * (args.sequences + 1) + place] =
        static_cast<int32_t>(static_cast<int64_t>(start) * args.row_elements[tensor]);
}

}  // namespace fathom::cuda
