// Which pairs of tokens merge, into what, and how soon.
#pragma once

#include <cstdint>
#include <vector>

#include "data/tokenizer/spec.h"

namespace fathom {

/// Rank (high 32 bits) and resulting id (low 32 bits) of a merge: the smaller, the sooner.
using PackedMerge = uint64_t;
inline constexpr PackedMerge kNoMerge = UINT64_MAX;

/// Open-addressing hash table from a pair of ids to its merge; a pair listed twice has its last rank.
/// Immutable.
class MergeTable {
 public:
  explicit MergeTable(const TokenizerSpec& spec);

  PackedMerge find(int32_t left, int32_t right) const {
    const uint64_t key = pack(left, right);
    for (size_t slot = slot_of(key);; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return slots_[slot].merge;
      if (slots_[slot].key == kEmpty) return kNoMerge;
    }
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;  // no pair of ids: ids are not negative
  struct Slot {
    uint64_t key = kEmpty;
    PackedMerge merge = kNoMerge;
  };

  static uint64_t pack(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const {
    key *= 0x9E3779B97F4A7C15;
    return (key ^ key >> 32) * 0x9E3779B97F4A7C15 >> shift_;
  }

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  int shift_ = 0;
};

}  // namespace fathom
