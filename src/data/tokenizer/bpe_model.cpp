#include "data/tokenizer/bpe_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/unicode.h"

namespace fathom {

BpeModel::BpeModel(const TokenizerSpec& spec, bool byte_level)
    : merges_(spec),
      suffix_(spec.end_of_word_suffix),
      byte_level_(byte_level),
      ignore_merges_(spec.ignore_merges),
      byte_fallback_(spec.byte_fallback),
      fuse_unknown_(spec.fuse_unknown) {
  std::vector<bool> only_added(spec.tokens.size(), false);
  for (const AddedToken& token : spec.added) only_added[static_cast<size_t>(token.id)] = !token.in_model;
  ids_.reserve(spec.tokens.size());
  for (size_t id = 0; id < spec.tokens.size(); ++id)
    if (!spec.tokens[id].empty() && !only_added[id]) ids_.emplace(spec.tokens[id], static_cast<int32_t>(id));
  if (!spec.unknown_token.empty()) {
    unknown_ = find(spec.unknown_token);
    if (unknown_ == kNone)
      fail(ErrorKind::kData, "unk_token \"{}\" is not in the vocabulary", spec.unknown_token);
  }
  read_bytes(spec);
  read_fallback();
}

void BpeModel::read_bytes(const TokenizerSpec& spec) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string symbol = byte_symbol(static_cast<uint8_t>(byte));
    byte_ids_[byte] = find(symbol);
    last_byte_ids_[byte] = find(symbol + spec.end_of_word_suffix);
  }
}

void BpeModel::read_fallback() {
  for (int byte = 0; byte < 256; ++byte) fallback_ids_[byte] = find(fmt::format("<0x{:02X}>", byte));
}

int32_t BpeModel::whole_word(std::string_view word) const {
  return byte_level_ ? find(to_byte_symbols(word)) : find(word);
}

std::span<const int32_t> BpeModel::encode_word(std::string_view word, Merger& merger) const {
  std::vector<int32_t>& symbols = merger.symbols();
  symbols.clear();
  if (ignore_merges_)
    if (const int32_t id = whole_word(word); id != kNone) {
      symbols.push_back(id);
      return symbols;
    }
  byte_level_ ? append_bytes(word, symbols) : append_characters(word, symbols);
  return merger.merge();
}

void BpeModel::append_bytes(std::string_view word, std::vector<int32_t>& symbols) const {
  bool after_unknown = false;
  for (size_t i = 0; i < word.size(); ++i) {
    const auto byte = static_cast<uint8_t>(word[i]);
    const int32_t id = i + 1 < word.size() ? byte_ids_[byte] : last_byte_ids_[byte];
    if (id != kNone)
      symbols.push_back(id);
    else
      append_unknown(symbols, after_unknown);
    after_unknown = id == kNone;
  }
}

void BpeModel::append_characters(std::string_view word, std::vector<int32_t>& symbols) const {
  bool after_unknown = false;
  const char* const end = word.data() + word.size();
  for (const char* p = word.data(); p < end;) {
    const int length = unicode::decode_utf8(p, end).length;
    const std::string_view character(p, static_cast<size_t>(length));
    p += length;
    const bool last = p == end && !suffix_.empty();
    const int32_t id = last ? find(std::string(character) + suffix_) : find(character);
    if (id != kNone)
      symbols.push_back(id);
    else if (!append_fallback(character, symbols)) {
      append_unknown(symbols, after_unknown);
      after_unknown = true;
      continue;
    }
    after_unknown = false;
  }
}

bool BpeModel::append_fallback(std::string_view character, std::vector<int32_t>& symbols) const {
  if (!byte_fallback_) return false;
  const auto id = [&](char byte) { return fallback_ids_[static_cast<uint8_t>(byte)]; };
  if (std::any_of(character.begin(), character.end(), [&](char byte) { return id(byte) == kNone; }))
    return false;
  for (const char byte : character) symbols.push_back(id(byte));
  return true;
}

void BpeModel::append_unknown(std::vector<int32_t>& symbols, bool follows_unknown) const {
  if (unknown_ == kNone || (follows_unknown && fuse_unknown_)) return;
  symbols.push_back(unknown_);
}

}  // namespace fathom
