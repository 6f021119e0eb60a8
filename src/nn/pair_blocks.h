// A matrix over all pairs of rows and columns, computed by blocks so that memory does not grow with the
// number of pairs times what a pair needs inside.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace fathom {

/// The values [r, c] of pairs between r rows and c columns, from slices of what describes them.
using PairBlock =
    std::function<at::Tensor(const std::vector<at::Tensor>& rows, const std::vector<at::Tensor>& columns)>;

struct PairBlockSize {
  int64_t rows = 1;
  int64_t columns = 1;
};

/// `block(rows, columns)` by blocks of at most `size`: [R, C]. Slices are taken along dimension 0; `rows` all
/// have R there, `columns` C. Of more than one block only the inputs are kept: the backward pass computes
/// each block again and adds up gradients (Chen et al., "Training deep nets with sublinear memory cost",
/// 2016). REQUIRES that `block` is a pure function of its arguments in which a pair's value depends on its
/// own row and column alone, and that no other tensor in it needs a gradient.
at::Tensor pair_blocks(const PairBlock& block, const std::vector<at::Tensor>& rows,
                       const std::vector<at::Tensor>& columns, const PairBlockSize& size);

}  // namespace fathom
