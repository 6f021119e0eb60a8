#include "data/tokenizer/word_cache.h"

#include <sys/mman.h>

#include "base/error.h"

namespace fathom {
namespace {

template <typename T>
T* map_zeros(size_t count) {
  void* memory =
      ::mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  FATHOM_CHECK(memory != MAP_FAILED, "[tokenizer] out of memory");
  ::madvise(memory, count * sizeof(T), MADV_HUGEPAGE);  // a hint: fewer address translations
  return static_cast<T*>(memory);
}

}  // namespace

template <>
void WordCache::Free<WordCache::Bucket>::operator()(Bucket* memory) const {
  ::munmap(memory, sizeof(Bucket) << kBucketBits);
}

template <>
void WordCache::Free<WordCache::LongEntry>::operator()(LongEntry* memory) const {
  ::munmap(memory, sizeof(LongEntry) << kLongBits);
}

WordCache::WordCache()
    : short_(map_zeros<Bucket>(size_t{1} << kBucketBits)),
      long_(map_zeros<LongEntry>(size_t{1} << kLongBits)) {
  static_assert(sizeof(Bucket) == 64 && sizeof(LongEntry) == 128);
}

size_t WordCache::long_slot(std::string_view word) {
  uint64_t hash = word.size();
  for (size_t i = 0; i < word.size(); i += 8) {
    uint64_t part = 0;
    std::memcpy(&part, word.data() + i, std::min<size_t>(8, word.size() - i));
    hash = (hash ^ part) * 0x9E3779B97F4A7C15;
    hash ^= hash >> 32;
  }
  return static_cast<size_t>(hash * 0xD6E8FEB86659FD93 >> (64 - kLongBits));
}

size_t WordCache::find_long(std::string_view word, int32_t* out) const {
  if (word.size() > kMaxLong) return 0;
  const LongEntry& entry = long_[long_slot(word)];
  if (std::string_view(entry.text, entry.length) != word) return 0;
  std::memcpy(out, entry.ids, sizeof entry.ids);
  return entry.count;
}

void WordCache::insert(std::string_view word, const char* text_end, std::span<const int32_t> ids) {
  if (word.size() > kMaxLong || ids.size() > kMaxIds || ids.empty()) return;
  const bool few = ids.size() <= kMaxShortIds;
  if (word.size() <= kMaxShort) {
    const Key key = short_key(word, text_end);
    ShortEntry entry{key, {}, few ? static_cast<uint32_t>(ids.size()) : kManyIds};
    if (few) std::copy(ids.begin(), ids.end(), entry.ids);
    Bucket& bucket = short_[key.bucket()];
    if (bucket.entries[0].key != key) bucket.entries[1] = bucket.entries[0];
    bucket.entries[0] = entry;
    if (few) return;
  }
  LongEntry& entry = long_[long_slot(word)];
  entry.length = static_cast<uint8_t>(word.size());
  entry.count = static_cast<uint8_t>(ids.size());
  std::copy(word.begin(), word.end(), entry.text);
  std::copy(ids.begin(), ids.end(), entry.ids);
}

}  // namespace fathom
