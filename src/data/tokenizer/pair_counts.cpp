#include "data/tokenizer/pair_counts.h"

#include <utility>

namespace fathom {

void PairCounts::add_word(std::span<const int32_t> symbols, int64_t count) {
  words_.push_back({symbols_.size(), static_cast<uint32_t>(symbols.size()), count});
  symbols_.insert(symbols_.end(), symbols.begin(), symbols.end());
}

void PairCounts::start() {
  for (uint32_t index = 0; index < words_.size(); ++index) {
    const Word& word = words_[index];
    const int32_t* symbols = symbols_.data() + word.begin;
    for (uint32_t i = 0; i + 1 < word.length; ++i) change(symbols[i], symbols[i + 1], word.count, index);
  }
  for (const uint64_t key : std::exchange(risen_, {})) {
    Info& info = infos_[index_.at(key)];
    info.changed = false;
    candidates_.push({info.count, key});
  }
}

uint32_t PairCounts::info_of(uint64_t key) {
  const auto [found, added] = index_.try_emplace(key, static_cast<uint32_t>(infos_.size()));
  if (added) infos_.emplace_back();
  return found->second;
}

void PairCounts::change(int32_t left, int32_t right, int64_t amount, uint32_t word) {
  const uint64_t key = pack(left, right);
  Info& info = infos_[info_of(key)];
  info.count += amount;
  if (amount <= 0) return;
  if (info.words.empty() || info.words.back() != word) info.words.push_back(word);
  if (!std::exchange(info.changed, true)) risen_.push_back(key);
}

PairCounts::Pair PairCounts::take_most_frequent() {
  while (!candidates_.empty()) {
    const Candidate top = candidates_.top();
    candidates_.pop();
    const int64_t count = infos_[index_.at(top.key)].count;
    if (count == top.count)
      return {static_cast<int32_t>(top.key >> 32), static_cast<int32_t>(top.key & UINT32_MAX), count};
    if (count > 0) candidates_.push({count, top.key});  // it shrank since it was pushed
  }
  return {0, 0, 0};
}

void PairCounts::merge(const Pair& pair, int32_t merged) {
  const std::vector<uint32_t> words = std::exchange(infos_[info_of(pack(pair.left, pair.right))].words, {});
  for (const uint32_t index : words) merge_in_word(pair, merged, index);
  infos_[info_of(pack(pair.left, pair.right))].count = 0;
  for (const uint64_t key : std::exchange(risen_, {})) {
    Info& info = infos_[index_.at(key)];
    info.changed = false;
    if (info.count > 0) candidates_.push({info.count, key});
  }
}

void PairCounts::merge_in_word(const Pair& pair, int32_t merged, uint32_t index) {
  Word& word = words_[index];
  int32_t* symbols = symbols_.data() + word.begin;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < word.length; ++i) {
    if (symbols[i] != pair.left || i + 1 == word.length || symbols[i + 1] != pair.right) {
      symbols[kept++] = symbols[i];
      continue;
    }
    if (kept > 0) {
      change(symbols[kept - 1], pair.left, -word.count, index);
      change(symbols[kept - 1], merged, word.count, index);
    }
    if (i + 2 < word.length) {
      change(pair.right, symbols[i + 2], -word.count, index);
      change(merged, symbols[i + 2], word.count, index);
    }
    symbols[kept++] = merged;
    ++i;
  }
  word.length = kept;
}

}  // namespace fathom
