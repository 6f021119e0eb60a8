// How deep in its tower a parameter stands, told by its name.
#pragma once

#include <cstdint>
#include <vector>

#include "train/optimizer.h"

namespace fathom {

/// A tower is what has blocks: "PREFIX.blocks.N.…" is its layer N + 1, "PREFIX.stages.S.blocks.N.…" counts on
/// over the stages, and what else a stage has belongs to the stage's last layer. Of the rest, what feeds the
/// first layer (embeddings, patches, stems, positions) is layer 0, and everything else stands above the last
/// one, as do parameters that belong to no tower.
struct ParameterDepth {
  int64_t depth = 1;   ///< 0 … layers + 1
  int64_t layers = 0;  ///< of the tower; 0 outside one
  int64_t from_top() const { return layers + 1 - depth; }
};

/// One for each parameter, in their order.
std::vector<ParameterDepth> parameter_depths(const NamedParameters& parameters);

}  // namespace fathom
