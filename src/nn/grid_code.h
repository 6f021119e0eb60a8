// Where a cell of a square grid lies, as sines and cosines. S side, D width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace fathom {

/// A code of every cell of a grid of `side` × `side`, row by row: the first D/2 values are of its row, the
/// others of its column, each half sines before cosines. Vaswani et al., "Attention Is All You Need", 2017,
/// section 3.5, but with waves that are from 4 cells to 4 grids long, so that every pair tells places apart
/// and the longest one rises with the place. Float32 [S², D], the root mean square of each cell is 1/√2.
/// REQUIRES `dim` divisible by 4.
at::Tensor grid_code(int64_t side, int64_t dim);

}  // namespace fathom
