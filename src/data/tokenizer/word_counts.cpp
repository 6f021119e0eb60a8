#include "data/tokenizer/word_counts.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <variant>

#include "base/parallel.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/pre_tokenizer.h"

namespace fathom {
namespace {

constexpr size_t kFirstSlots = 1 << 15;
constexpr size_t kStorageBlock = 1 << 18;
constexpr size_t kChunkBytes = 1 << 19;

uint64_t hash_word(std::string_view word) {
  uint64_t hash = word.size() * 0xD6E8FEB86659FD93;
  for (size_t i = 0; i < word.size(); i += 8) {
    uint64_t part = 0;
    std::memcpy(&part, word.data() + i, std::min<size_t>(8, word.size() - i));
    hash = (hash ^ part) * 0x9E3779B97F4A7C15;
    hash ^= hash >> 32;
  }
  return hash * 0xD6E8FEB86659FD93;
}

bool is_letter(char c) {
  return scan::ascii_letter_bits(static_cast<uint8_t>(c)) != 0;
}

/// Cuts a text into chunks at places "letter, space" that every splitter of ours cuts at anyway.
void append_chunks(std::string_view text, std::vector<std::string_view>& chunks) {
  while (text.size() > kChunkBytes) {
    size_t cut = kChunkBytes;
    while (cut < text.size() && !(text[cut] == ' ' && is_letter(text[cut - 1]))) ++cut;
    chunks.push_back(text.substr(0, cut));
    text.remove_prefix(cut);
  }
  if (!text.empty()) chunks.push_back(text);
}

/// The texts between added tokens, cut into chunks if that changes no word.
std::vector<std::string_view> chunks_of(std::span<const std::string_view> texts, const TokenizerSpec& spec,
                                        bool may_cut) {
  const AddedTokenMatcher added(spec.added);
  std::vector<std::string_view> chunks;
  for (const std::string_view text : texts) {
    for (size_t at = 0; at < text.size();) {
      const AddedTokenMatcher::Match match = added.find(text, at, true);
      const std::string_view part = text.substr(at, match.begin - at);
      if (may_cut)
        append_chunks(part, chunks);
      else if (!part.empty())
        chunks.push_back(part);
      at = match.end;
    }
  }
  return chunks;
}

void count_chunk(std::string_view chunk, const Normalizer& normalizer, const PreTokenizer& splitter,
                 WordCounts& counts) {
  const std::string normalized = normalizer.empty() ? std::string() : normalizer.apply(chunk);
  const std::string_view text = normalizer.empty() ? chunk : normalized;
  if (const PreTokenizer::Scanner* scanner = splitter.scanner()) {
    std::visit(
        [&](const auto& s) {
          scan::for_each_piece(s, text, [&](std::string_view word) { counts.add(word); });
        },
        *scanner);
  } else {
    for (const std::string& word : splitter.split(text, true)) counts.add(word);
  }
}

bool cuts_at_spaces(const PreTokenizer& splitter) {
  return splitter.scanner() && !splitter.adds_prefix_space() &&
         !std::holds_alternative<scan::Whole>(*splitter.scanner());
}

}  // namespace

WordCounts::WordCounts() : slots_(kFirstSlots) {}

void WordCounts::add(std::string_view word, int64_t count) {
  const uint64_t hash = hash_word(word);
  size_t slot = hash >> 20 & (slots_.size() - 1);
  while (slots_[slot].count > 0) {
    if (slots_[slot].hash == hash && slots_[slot].word == word) {
      slots_[slot].count += count;
      return;
    }
    slot = (slot + 1) & (slots_.size() - 1);
  }
  slots_[slot] = {keep(word), hash, count};
  if (++size_ * 2 > slots_.size()) grow();
}

void WordCounts::grow() {
  std::vector<Entry> bigger(slots_.size() * 2);
  for (const Entry& entry : slots_) {
    if (entry.count == 0) continue;
    size_t slot = entry.hash >> 20 & (bigger.size() - 1);
    while (bigger[slot].count > 0) slot = (slot + 1) & (bigger.size() - 1);
    bigger[slot] = entry;
  }
  slots_ = std::move(bigger);
}

std::string_view WordCounts::keep(std::string_view word) {
  if (blocks_.empty() || blocks_.back().capacity() - blocks_.back().size() < word.size())
    blocks_.emplace_back().reserve(std::max(kStorageBlock, word.size()));
  std::vector<char>& block = blocks_.back();
  const size_t at = block.size();
  block.insert(block.end(), word.begin(), word.end());
  return {block.data() + at, word.size()};
}

void WordCounts::add_all(const WordCounts& other) {
  for (const Entry& entry : other.slots_)
    if (entry.count > 0) add(entry.word, entry.count);
}

std::vector<WordCounts::Entry> WordCounts::sorted() const {
  std::vector<Entry> entries;
  entries.reserve(size_);
  std::copy_if(slots_.begin(), slots_.end(), std::back_inserter(entries),
               [](const Entry& e) { return e.count > 0; });
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.word < b.word; });
  return entries;
}

WordCounts count_words(std::span<const std::string_view> texts, const TokenizerSpec& spec,
                       int64_t num_threads, const CountProgress& progress) {
  const Normalizer normalizer(spec.normalizer);
  const PreTokenizer splitter(spec.pre_tokenizer);
  const std::vector<std::string_view> chunks = chunks_of(texts, spec, cuts_at_spaces(splitter));
  std::vector<WordCounts> counts(static_cast<size_t>(num_threads));
  std::mutex mutex;
  size_t next = 0;
  int64_t done_bytes = 0;
  parallel_for_each(num_threads, num_threads, [&](int64_t thread) {
    std::unique_lock lock(mutex);
    while (next < chunks.size()) {
      const std::string_view chunk = chunks[next++];
      lock.unlock();
      count_chunk(chunk, normalizer, splitter, counts[static_cast<size_t>(thread)]);
      lock.lock();
      done_bytes += static_cast<int64_t>(chunk.size());
      if (progress) progress(done_bytes);
    }
  });
  for (size_t i = 1; i < counts.size(); ++i) counts[0].add_all(counts[i]);
  return std::move(counts[0]);
}

}  // namespace fathom
