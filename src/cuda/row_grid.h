// Threads and blocks of kernels whose threads or warps walk over the rows that the device counts.
#pragma once

#include <cuda_runtime_api.h>

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

constexpr int kRowsAtOnce = 2;       ///< of which a thread with one column's vectors asks for all
constexpr int kColumnResidents = 4;  ///< blocks of such threads that a multiprocessor has at once

/// Threads for a row's vectors, in as few blocks as take them, and blocks that share rows: no more than run
/// together.
struct ColumnGrid {
  unsigned threads;
  dim3 blocks;

  ColumnGrid(int64_t vectors, int64_t rows) {
    const int64_t pieces = std::max<int64_t>((vectors + kThreads - 1) / kThreads, 1);
    const int64_t warps = ((vectors + pieces - 1) / pieces + 31) / 32;
    threads = static_cast<unsigned>(std::max<int64_t>(warps, 1) * 32);
    const int64_t residents = int64_t{kColumnResidents} * kThreads / threads;
    const int64_t most = kMultiprocessors * residents / pieces;
    blocks = dim3(static_cast<unsigned>(pieces),
                  static_cast<unsigned>(std::clamp<int64_t>(rows, 1, std::max<int64_t>(most, 1))));
  }
};

/// Blocks where each thread takes a vector of 8 elements a turn.
inline unsigned vector_grid(int64_t elements) {
  return grid_of((elements / 8 + kThreads - 1) / kThreads);
}

}  // namespace fathom::cuda
