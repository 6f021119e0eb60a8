// Remembers the ids of words, within a fixed amount of memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

namespace fathom {

/// Words of up to 15 bytes and 3 ids lie in buckets of two, one cache line each; the others in a table where
/// each has one slot. A new word pushes an old one out, so memory is bounded (5 MB, touched as needed) and no
/// input is worse than encoding every word anew. One thread.
class WordCache {
 public:
  /// Longest `find` result; the caller's buffer has room for at least as many ids.
  static constexpr size_t kMaxIds = 20;

  WordCache();

  /// A word to look up. Making probes for a few words before finding the first overlaps their waits for
  /// memory.
  class Probe;
  /// `text_end` is the end of readable memory behind the word. REQUIRES: the word is not empty.
  Probe probe(std::string_view word, const char* text_end) const;
  /// Writes the word's ids to `out` (of which up to kMaxIds places may be overwritten) and returns how many;
  /// 0 if the word is not known.
  size_t find(const Probe& probe, int32_t* out) const;

  void insert(std::string_view word, const char* text_end, std::span<const int32_t> ids);

 private:
  static constexpr size_t kMaxShort = 15;
  static constexpr size_t kMaxShortIds = 3;
  static constexpr size_t kMaxLong = 46;
  static constexpr uint32_t kManyIds = kMaxShortIds + 1;  ///< the word's ids are in the other table
  static constexpr int kBucketBits = 16;
  static constexpr int kLongBits = 13;

  /// The word's bytes, zeros, and its length in the last byte; an empty slot has length 0.
  struct Key {
    uint64_t low, high;
    bool operator==(const Key& other) const {  // one branch, or none: which word comes next nobody predicts
      return ((low ^ other.low) | (high ^ other.high)) == 0;
    }
    size_t bucket() const {
      const auto product =
          static_cast<unsigned __int128>(low ^ 0x9E3779B97F4A7C15) * (high ^ 0xD6E8FEB86659FD93);
      return static_cast<size_t>((static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64)) >>
                                 (64 - kBucketBits));
    }
  };
  struct ShortEntry {
    Key key;
    int32_t ids[kMaxShortIds];
    uint32_t count;
  };
  struct alignas(64) Bucket {
    ShortEntry entries[2];  ///< the newer one first
  };
  struct LongEntry {
    uint8_t length, count;
    char text[kMaxLong];
    int32_t ids[kMaxIds];
  };

  /// From 16 - n on: a mask of n bytes.
  static constexpr uint8_t kOnesThenZeros[32] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
                                                 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};

  static Key short_key(std::string_view word, const char* text_end) {
    Key key{0, 0};
    const size_t length = word.size();
    if (text_end - word.data() >= 16) [[likely]] {
      std::memcpy(&key, word.data(), 16);
      uint64_t keep[2];
      std::memcpy(keep, kOnesThenZeros + 16 - length, 16);
      key.low &= keep[0];
      key.high &= keep[1];
    } else {
      std::memcpy(&key, word.data(), length);
    }
    key.high |= static_cast<uint64_t>(length) << 56;
    return key;
  }
  static size_t long_slot(std::string_view word);
  size_t find_long(std::string_view word, int32_t* out) const;

  template <typename T>
  struct Free {
    void operator()(T* memory) const;
  };
  // Zeros straight from the system: a page takes memory only when touched.
  std::unique_ptr<Bucket[], Free<Bucket>> short_;
  std::unique_ptr<LongEntry[], Free<LongEntry>> long_;
};

class WordCache::Probe {
 public:
  std::string_view word() const { return word_; }

 private:
  friend class WordCache;
  std::string_view word_;
  Key key_;               ///< of a short word
  const Bucket* bucket_;  ///< nullptr: a long word
};

inline WordCache::Probe WordCache::probe(std::string_view word, const char* text_end) const {
  Probe probe;
  probe.word_ = word;
  probe.bucket_ = nullptr;
  if (word.size() <= kMaxShort) [[likely]] {
    probe.key_ = short_key(word, text_end);
    probe.bucket_ = &short_[probe.key_.bucket()];
    __builtin_prefetch(probe.bucket_);
  }
  return probe;
}

inline size_t WordCache::find(const Probe& probe, int32_t* out) const {
  if (probe.bucket_) [[likely]] {
    const auto& entries = probe.bucket_->entries;
    const ShortEntry& entry = entries[static_cast<size_t>(entries[0].key != probe.key_)];
    if (entry.key != probe.key_) return 0;
    std::memcpy(out, entry.ids, sizeof entry.ids);
    if (entry.count <= kMaxShortIds) [[likely]]
      return entry.count;
  }
  return find_long(probe.word_, out);
}

}  // namespace fathom
