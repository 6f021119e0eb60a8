// Which tiles of a product are through first. For the host.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// In which pairs of blocks take all tiles.
inline int64_t pair_turns(int64_t rows, int64_t columns, int64_t tile_rows, int64_t tile_columns) {
  const int64_t pairs =
      (rows + 2 * tile_rows - 1) / (2 * tile_rows) * ((columns + tile_columns - 1) / tile_columns);
  return (pairs + kMultiprocessors / 2 - 1) / (kMultiprocessors / 2);
}

/// What a wide tile takes beside its products, in columns of a step of its reduction: filling and emptying.
constexpr int64_t kColumnsBeside = 350;

/// How long all wide tiles (of 128 rows) take, in columns of a step of 64 of the reduction.
inline int64_t wide_time(int64_t rows, int64_t columns, int64_t steps, int64_t tile_columns) {
  return pair_turns(rows, columns, 128, tile_columns) * (steps * tile_columns + kColumnsBeside);
}

/// Columns of the wide tiles that are through first, of those named; 0: small tiles (of 64 × 128) are. Where
/// few turns are taken, narrower tiles may leave fewer multiprocessors idle in the last.
inline int best_columns(int64_t rows, int64_t columns, int64_t depth, std::initializer_list<int> named) {
  const int64_t steps = (depth + 63) / 64;
  int64_t least = pair_turns(rows, columns, 64, 128) * (steps * 256 + kColumnsBeside) / 3;
  int best = 0;
  for (const int tile_columns : named) {
    const int64_t time = wide_time(rows, columns, steps, tile_columns);
    if (time > least) continue;
    least = time;
    best = tile_columns;
  }
  return best;
}

}  // namespace fathom::cuda
