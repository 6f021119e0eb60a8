// How often every word occurs: the first half of training.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "data/tokenizer/spec.h"

namespace fathom {

/// Open-addressing hash table from words to counts; owns copies of the words. One thread.
class WordCounts {
 public:
  struct Entry {
    std::string_view word;
    uint64_t hash = 0;
    int64_t count = 0;  ///< 0: the slot is empty
  };

  WordCounts();
  void add(std::string_view word, int64_t count = 1);
  void add_all(const WordCounts& other);
  size_t size() const { return size_; }

  /// Entries with a count, sorted by word, so that nothing after depends on the order of counting.
  std::vector<Entry> sorted() const;

 private:
  void grow();
  std::string_view keep(std::string_view word);

  std::vector<Entry> slots_;
  size_t size_ = 0;
  std::deque<std::vector<char>> blocks_;  ///< storage of the words
};

/// Called with the bytes counted so far; from one thread at a time.
using CountProgress = std::function<void(int64_t done_bytes)>;

/// Counts the words of `texts` on `num_threads` threads after the spec's normalizer and splitter. Its added
/// tokens separate the text and are not counted. Long texts are cut between words where the splitter allows
/// it, so the result depends on neither threads nor cuts.
WordCounts count_words(std::span<const std::string_view> texts, const TokenizerSpec& spec,
                       int64_t num_threads, const CountProgress& progress);

}  // namespace fathom
