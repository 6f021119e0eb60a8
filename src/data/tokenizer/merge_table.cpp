#include "data/tokenizer/merge_table.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace fathom {

MergeTable::MergeTable(const TokenizerSpec& spec)
    : small_(size_t{kSmallIds} * kSmallIds, kNoMerge), merged_(spec.merged) {
  if (spec.merges.size() >= kNoMerge) fail(ErrorKind::kData, "{} merges are too many", spec.merges.size());
  const size_t num_slots = std::bit_ceil(std::max<size_t>(4, 2 * spec.merges.size()));
  slots_.resize(num_slots);
  mask_ = num_slots - 1;
  shift_ = 64 - std::countr_zero(num_slots);
  for (MergeRank rank = 0; rank < spec.merges.size(); ++rank) {
    const auto [left, right] = spec.merges[rank];
    if (left < kSmallIds && right < kSmallIds) small_[left * kSmallIds + right] = rank;
    const uint64_t key = pack(left, right);
    size_t slot = slot_of(key);
    while (slots_[slot].key != kEmpty && slots_[slot].key != key) slot = (slot + 1) & mask_;
    slots_[slot] = {key, rank};
  }
}

}  // namespace fathom
