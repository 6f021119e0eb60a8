// Applies merges to the symbols of one word.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/tokenizer/merge_table.h"

namespace fathom {

/// Repeats the most important merge, leftmost first, until none applies. Holds buffers between words; one
/// thread. Short words are searched again after each merge; long ones keep their pairs in a heap, so that n
/// symbols take O(n log n) steps whatever they are.
class Merger {
 public:
  explicit Merger(const MergeTable& table) : table_(&table) {}

  /// Symbols of the next word; the caller fills it.
  std::vector<int32_t>& symbols() { return symbols_; }
  /// Merges `symbols()`; the result is valid until they are touched. REQUIRES: fewer than 2^32 symbols.
  std::span<const int32_t> merge();

  /// Pairs looked at in all long words so far: what the linear-time test counts.
  int64_t num_steps() const { return num_steps_; }
  /// Gives memory that a huge word took back.
  void release_excess();

 private:
  size_t merge_short(size_t count);
  size_t merge_long(size_t count);
  void push_pair(uint32_t left);

  const MergeTable* table_;
  std::vector<int32_t> symbols_;
  std::vector<MergeRank> ranks_;                      ///< of the merge of symbol i with its right neighbour
  std::vector<uint32_t> next_, previous_;             ///< living neighbours
  std::vector<std::pair<MergeRank, uint32_t>> heap_;  ///< (rank, left symbol), smallest on top
  int64_t num_steps_ = 0;
};

}  // namespace fathom
