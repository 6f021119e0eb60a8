#include "data/tokenizer/merger.h"

#include <algorithm>
#include <functional>

#include "base/error.h"

namespace fathom {
namespace {

constexpr size_t kShort = 32;
constexpr size_t kKeptCapacity = 1 << 16;
constexpr uint32_t kNone = UINT32_MAX;
constexpr int32_t kDead = -1;

}  // namespace

std::span<const int32_t> Merger::merge() {
  const size_t count = symbols_.size();
  const size_t left = count < 2 ? count : count <= kShort ? merge_short(count) : merge_long(count);
  return {symbols_.data(), left};
}

size_t Merger::merge_short(size_t count) {
  int32_t* symbols = symbols_.data();
  MergeRank ranks[kShort];
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = table_->rank(symbols[i], symbols[i + 1]);
  while (count > 1) {
    const auto at = static_cast<size_t>(std::min_element(ranks, ranks + count - 1) - ranks);
    if (ranks[at] == kNoMerge) break;
    symbols[at] = table_->merged(ranks[at]);
    --count;
    for (size_t i = at + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = at; i + 1 < count; ++i) ranks[i] = ranks[i + 1];
    if (at > 0) ranks[at - 1] = table_->rank(symbols[at - 1], symbols[at]);
    if (at + 1 < count) ranks[at] = table_->rank(symbols[at], symbols[at + 1]);
  }
  return count;
}

void Merger::push_pair(uint32_t left) {
  ++num_steps_;
  ranks_[left] = table_->rank(symbols_[left], symbols_[next_[left]]);
  if (ranks_[left] == kNoMerge) return;
  heap_.emplace_back(ranks_[left], left);
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

size_t Merger::merge_long(size_t count) {
  FATHOM_CHECK(count < kNone, "[tokenizer] a word of {} symbols is too long", count);
  next_.resize(count);
  previous_.resize(count);
  ranks_.assign(count, kNoMerge);
  heap_.clear();
  for (uint32_t i = 0; i < count; ++i) {
    next_[i] = i + 1 < count ? i + 1 : kNone;
    previous_[i] = i > 0 ? i - 1 : kNone;
  }
  for (uint32_t i = 0; i + 1 < count; ++i) push_pair(i);
  while (!heap_.empty()) {
    const auto [rank, at] = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    heap_.pop_back();
    ++num_steps_;
    if (symbols_[at] == kDead || ranks_[at] != rank) continue;  // stale
    const uint32_t right = next_[at];
    symbols_[at] = table_->merged(rank);
    symbols_[right] = kDead;
    ranks_[at] = kNoMerge;
    next_[at] = next_[right];
    if (next_[at] != kNone) {
      previous_[next_[at]] = at;
      push_pair(at);
    }
    if (previous_[at] != kNone) push_pair(previous_[at]);
  }
  return static_cast<size_t>(std::remove(symbols_.begin(), symbols_.end(), kDead) - symbols_.begin());
}

void Merger::release_excess() {
  if (std::max({symbols_.capacity(), ranks_.capacity(), heap_.capacity()}) <= kKeptCapacity) return;
  *this = Merger(*table_);
}

}  // namespace fathom
