#include "data/tokenizer/trainer.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/pair_counts.h"
#include "data/tokenizer/word_counts.h"

namespace fathom {
namespace {

using Progress = std::function<void(const TokenizerTrainingProgress&)>;

int64_t num_byte_tokens(SplitterKind splitter) {
  return splitter == SplitterKind::kClip ? 512 : 256;
}

/// The vocabulary while it grows.
class Vocabulary {
 public:
  explicit Vocabulary(TokenizerSpec& spec) : spec_(spec) {}

  /// Id of the token; a new one if it is not there yet.
  int32_t id(const std::string& token) {
    const auto [found, added] = ids_.try_emplace(token, static_cast<int32_t>(spec_.tokens.size()));
    if (added) spec_.tokens.push_back(token);
    return found->second;
  }
  void add_special(const std::string& text) {
    AddedToken token;
    token.id = id(text);
    token.text = text;
    token.special = token.in_model = true;
    spec_.added.push_back(token);
  }
  int32_t merge(int32_t left, int32_t right) {
    const int32_t merged =
        id(spec_.tokens[static_cast<size_t>(left)] + spec_.tokens[static_cast<size_t>(right)]);
    spec_.merges.emplace_back(left, right);
    spec_.merged.push_back(merged);
    return merged;
  }
  int64_t size() const { return static_cast<int64_t>(spec_.tokens.size()); }

 private:
  TokenizerSpec& spec_;
  std::unordered_map<std::string, int32_t> ids_;
};

/// Ids of single bytes, inside a word and at its end.
struct ByteIds {
  int32_t inside[256], last[256];
};

ByteIds add_bytes(Vocabulary& vocabulary, const std::string& suffix) {
  ByteIds ids;
  for (int rank = 0; rank < 256; ++rank) {
    const uint8_t byte = byte_of_rank(rank);
    ids.inside[byte] = vocabulary.id(byte_symbol(byte));
  }
  for (int rank = 0; rank < 256; ++rank) {
    const uint8_t byte = byte_of_rank(rank);
    ids.last[byte] = vocabulary.id(byte_symbol(byte) + suffix);
  }
  return ids;
}

PairCounts pairs_of(const WordCounts& counts, const ByteIds& ids) {
  PairCounts pairs;
  std::vector<int32_t> symbols;
  for (const WordCounts::Entry& entry : counts.sorted()) {
    symbols.clear();
    for (const char byte : entry.word) symbols.push_back(ids.inside[static_cast<uint8_t>(byte)]);
    symbols.back() = ids.last[static_cast<uint8_t>(entry.word.back())];
    pairs.add_word(symbols, entry.count);
  }
  pairs.start();
  return pairs;
}

void add_merges(Vocabulary& vocabulary, PairCounts pairs, const TokenizerTrainerConfig& config,
                const Progress& progress) {
  while (vocabulary.size() < config.vocab_size) {
    const PairCounts::Pair pair = pairs.take_most_frequent();
    if (pair.count < config.min_frequency) break;
    pairs.merge(pair, vocabulary.merge(pair.left, pair.right));
    if (progress && vocabulary.size() % 64 == 0)
      progress({TokenizerTrainingProgress::Phase::kMerging, vocabulary.size(), config.vocab_size});
  }
}

}  // namespace

void TokenizerTrainerConfig::validate() const {
  const auto needed = static_cast<int64_t>(special_tokens.size()) + num_byte_tokens(splitter);
  if (vocab_size < needed)
    fail(ErrorKind::kConfig, "vocab_size {} has no room for the {} ids of special tokens and bytes",
         vocab_size, needed);
  std::set<std::string> seen;
  for (const std::string& token : special_tokens) {
    if (token.empty()) fail(ErrorKind::kConfig, "special_tokens holds an empty token");
    if (!seen.insert(token).second) fail(ErrorKind::kConfig, "special token \"{}\" is given twice", token);
  }
}

Tokenizer train_tokenizer(std::span<const std::string_view> texts, const TokenizerTrainerConfig& config,
                          const Progress& progress) {
  config.validate();
  TokenizerSpec spec;
  apply_splitter(spec, config.splitter);
  Vocabulary vocabulary(spec);
  for (const std::string& token : config.special_tokens) vocabulary.add_special(token);
  const ByteIds bytes = add_bytes(vocabulary, spec.end_of_word_suffix);

  int64_t total = 0;
  for (const std::string_view text : texts) total += static_cast<int64_t>(text.size());
  const int64_t num_threads = config.num_threads > 0 ? config.num_threads : num_hardware_threads();
  const WordCounts counts = count_words(texts, spec, num_threads, [&](int64_t done) {
    if (progress) progress({TokenizerTrainingProgress::Phase::kCounting, done, total});
  });
  if (counts.size() == 0) fail(ErrorKind::kData, "the text to train a tokenizer on holds no word");
  add_merges(vocabulary, pairs_of(counts, bytes), config, progress);
  return Tokenizer(std::move(spec));
}

}  // namespace fathom
