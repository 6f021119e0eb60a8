// How often neighbouring symbols occur together in a set of words, kept true while pairs are merged.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fathom {

/// The second half of training: words as symbols, and the counts of their pairs. One thread.
/// Source: the incremental form of Sennrich et al. 2016; ties go to the pair of smallest ids, as in
/// `tokenizers`.
class PairCounts {
 public:
  struct Pair {
    int32_t left, right;
    int64_t count;
  };

  /// Starts a word that occurs `count` times. REQUIRES: no merge yet.
  void add_word(std::span<const int32_t> symbols, int64_t count);
  /// Counts the pairs of all words; then merging may begin.
  void start();

  /// Takes the most frequent pair out; its count is 0 when there is none.
  Pair take_most_frequent();
  /// Replaces the pair by `merged` in all words, left to right.
  void merge(const Pair& pair, int32_t merged);

 private:
  struct Word {
    uint64_t begin;  ///< of its symbols
    uint32_t length;
    int64_t count;
  };
  struct Info {
    int64_t count = 0;
    std::vector<uint32_t> words;  ///< that have, or had, the pair
    bool changed = false;         ///< rose during the merge at hand
  };
  struct Candidate {
    int64_t count;
    uint64_t key;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : key > other.key;
    }
  };

  static uint64_t pack(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  uint32_t info_of(uint64_t key);
  void change(int32_t left, int32_t right, int64_t amount, uint32_t word);
  void merge_in_word(const Pair& pair, int32_t merged, uint32_t index);

  std::vector<int32_t> symbols_;
  std::vector<Word> words_;
  std::unordered_map<uint64_t, uint32_t> index_;  ///< pair to its place in `infos_`
  std::vector<Info> infos_;
  std::vector<uint64_t> risen_;  ///< pairs whose count rose during the merge at hand
  std::priority_queue<Candidate> candidates_;
};

}  // namespace fathom
