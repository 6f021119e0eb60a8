// Threads and blocks of kernels whose threads or warps walk over the rows that the device counts.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kVectorsAtOnce = 4;  ///< of a row, that a lane asks for before it uses the first

/// Blocks for at most so many pieces of work of a block each.
inline unsigned grid_of(int64_t pieces) {
  return static_cast<unsigned>(std::clamp<int64_t>(pieces, 1, int64_t{kMultiprocessors} * 8));
}

/// Blocks where each thread takes a vector of 8 elements a turn.
inline unsigned vector_grid(int64_t elements) {
  return grid_of((elements / 8 + kThreads - 1) / kThreads);
}

}  // namespace fathom::cuda
