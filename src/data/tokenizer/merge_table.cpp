#include "data/tokenizer/merge_table.h"

#include <algorithm>
#include <bit>

namespace fathom {

MergeTable::MergeTable(const TokenizerSpec& spec) {
  const size_t num_slots = std::bit_ceil(std::max<size_t>(4, 2 * spec.merges.size()));
  slots_.resize(num_slots);
  mask_ = num_slots - 1;
  shift_ = 64 - std::countr_zero(num_slots);
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const uint64_t key = pack(spec.merges[rank].first, spec.merges[rank].second);
    size_t slot = slot_of(key);
    while (slots_[slot].key != kEmpty && slots_[slot].key != key) slot = (slot + 1) & mask_;
    slots_[slot] = {key, static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(spec.merged[rank])};
  }
}

}  // namespace fathom
