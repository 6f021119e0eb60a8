// How norms divide their rows among threads (norm_rows.cuh).
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

constexpr int kNormRowThreads = 128;
constexpr int kNormRowWarps = kNormRowThreads / 32;
constexpr int kMaxNormVectors = 8;  ///< of a lane

/// Lanes that share a row: the fewest that hold it in three or four vectors each.
inline int norm_lanes(int64_t vectors) {
  int lanes = 1;
  while (lanes < 32 && vectors > int64_t{lanes} * 4) lanes *= 2;
  return lanes;
}

/// Of a row; 0 where they do not fill it.
inline int64_t norm_vectors(ElementType type, int64_t dim) {
  const int64_t width = type == ElementType::kFloat ? 4 : 8;
  return dim % width == 0 ? dim / width : 0;
}

/// Whether a row's vectors fit the registers of a warp.
inline bool norm_row_fits(ElementType type, int64_t dim) {
  const int64_t vectors = norm_vectors(type, dim);
  return type != ElementType::kDouble && vectors > 0 && vectors <= 32 * kMaxNormVectors;
}

/// Blocks of a backward pass: the same for the same sizes, so that sums do not change from run to run.
inline int64_t norm_row_blocks(ElementType type, int64_t rows, int64_t dim) {
  const int64_t groups = kNormRowThreads / norm_lanes(norm_vectors(type, dim));
  return std::max<int64_t>(1, std::min<int64_t>((rows + groups - 1) / groups, int64_t{kMultiprocessors} * 4));
}

}  // namespace fathom::cuda
