// Which pairs of tokens merge, into what, and how soon.
#pragma once

#include <cstdint>
#include <vector>

#include "data/tokenizer/spec.h"

namespace fathom {

/// Position of a merge in the list: the smaller, the sooner.
using MergeRank = uint32_t;
inline constexpr MergeRank kNoMerge = UINT32_MAX;

/// From a pair of ids to its merge; a pair listed twice has its last rank. Pairs of small ids, where single
/// bytes have theirs, lie in a square table, all others in an open-addressing hash table. Immutable.
class MergeTable {
 public:
  /// Errors (kData): 2^32 - 1 merges or more.
  explicit MergeTable(const TokenizerSpec& spec);

  MergeRank rank(int32_t left, int32_t right) const {
    if (static_cast<uint32_t>(left | right) < kSmallIds) return small_[left * kSmallIds + right];
    const uint64_t key = pack(left, right);
    for (size_t slot = slot_of(key);; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return slots_[slot].rank;
      if (slots_[slot].key == kEmpty) return kNoMerge;
    }
  }
  /// Id that a merge makes. REQUIRES: rank is one that `rank` returned, not kNoMerge.
  int32_t merged(MergeRank rank) const { return merged_[rank]; }

 private:
  static constexpr int32_t kSmallIds = 512;
  static constexpr uint64_t kEmpty = UINT64_MAX;  // no pair of ids: ids are not negative
  struct Slot {
    uint64_t key = kEmpty;
    MergeRank rank = kNoMerge;
  };

  static uint64_t pack(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const {
    key *= 0x9E3779B97F4A7C15;
    return (key ^ key >> 32) * 0x9E3779B97F4A7C15 >> shift_;
  }

  std::vector<MergeRank> small_;
  std::vector<Slot> slots_;
  std::vector<int32_t> merged_;
  size_t mask_ = 0;
  int shift_ = 0;
};

}  // namespace fathom
