// An order of samples in which semantic neighbours stand side by side.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace fathom {

struct NeighbourOrder {
  int64_t group = 8;            ///< neighbours side by side
  double max_similarity = 1.0;  ///< who is more similar comes last
  int64_t pool = 4096;          ///< neighbours are looked for among so many samples, which bounds the work
  uint64_t key = 0;             ///< decides where groups stand
};

/// A permutation of `order`: its samples in groups of `group`, each an anchor with its nearest by the rows of
/// `unit_SD` (unit length or zero, on the CPU) among those of the same run of `pool` samples that no group
/// has yet; then the groups shuffled. What is left of a last, incomplete group comes last.
std::vector<int64_t> group_neighbours(const std::vector<int64_t>& order, const at::Tensor& unit_SD,
                                      const NeighbourOrder& options);

}  // namespace fathom
