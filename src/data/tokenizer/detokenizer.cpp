#include "data/tokenizer/detokenizer.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/step_options.h"

namespace fathom {
namespace {

/// The byte of a token "<0x41>", or -1.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int byte = -1;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  return error == std::errc() && end == token.data() + 5 ? byte : -1;
}

std::string replaced(std::string_view text, std::string_view wanted, std::string_view replacement) {
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(wanted); at != std::string_view::npos; at = text.find(wanted, done)) {
    out.append(text.substr(done, at - done)).append(replacement);
    done = at + wanted.size();
  }
  return out.append(text.substr(done));
}

size_t option_count(const Json& step, std::string_view name) {
  const int64_t count = step.at(name).as_int();
  if (count < 0) fail(ErrorKind::kData, "option {} of decoder Strip is negative", name);
  return static_cast<size_t>(count);
}

}  // namespace

Detokenizer::Detokenizer(const TokenizerSpec& spec, bool byte_level)
    : byte_level_(byte_level), byte_fallback_(spec.byte_fallback), word_end_(spec.end_of_word_suffix) {
  if (!spec.decoder.is_null()) read_decoder(spec.decoder);
  const size_t num_ids = spec.tokens.size();
  std::vector<const AddedToken*> added(num_ids, nullptr);
  for (const AddedToken& token : spec.added) added[static_cast<size_t>(token.id)] = &token;
  kinds_.assign(num_ids, kUnused);
  offsets_.assign(1, 0);
  for (size_t id = 0; id < num_ids; ++id) {
    const std::string& token = spec.tokens[id];
    if (!token.empty()) kinds_[id] = added[id] && added[id]->special ? kSpecial : kOrdinary;
    bytes_ += added[id] ? token : bytes_of(token);
    if (bytes_.size() > UINT32_MAX) fail(ErrorKind::kData, "the tokens together are longer than 4 GiB");
    offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
  }
}

void Detokenizer::read_decoder(const Json& decoder) {
  const std::string& type = decoder.at("type").as_string();
  if (type == "Sequence") {
    for (const Json& step : decoder.at("decoders").as_array()) read_decoder(step);
  } else if (type == "ByteLevel") {
    byte_level_ = true;
  } else if (type == "ByteFallback") {
    byte_fallback_ = true;
  } else if (type == "Replace" && decoder.at("content").as_string() == " " &&
             decoder.at("pattern").find("String")) {
    space_symbol_ = decoder.at("pattern").at("String").as_string();
  } else if (type == "Metaspace") {
    space_symbol_ = decoder.at("replacement").as_string();
    const Json* scheme = decoder.find("prepend_scheme");
    const bool prepends =
        scheme ? scheme->as_string() != "never" : option_flag(decoder, "add_prefix_space", true);
    strip_left_ = prepends ? 1 : 0;
  } else if (type == "Strip" && decoder.at("content").as_string() == " ") {
    strip_left_ = option_count(decoder, "start");
    strip_right_ = option_count(decoder, "stop");
  } else if (type == "BPEDecoder") {
    word_end_ = decoder.at("suffix").as_string();
  } else if (type != "Fuse") {
    fail(ErrorKind::kData, "decoder {} with these options is not supported", type);
  }
}

std::string Detokenizer::bytes_of(const std::string& token) const {
  if (byte_fallback_)
    if (const int byte = fallback_byte(token); byte >= 0) return std::string(1, static_cast<char>(byte));
  std::string text = token;
  const bool ends_word = !word_end_.empty() && text.ends_with(word_end_);
  if (ends_word) text.resize(text.size() - word_end_.size());
  if (!space_symbol_.empty()) text = replaced(text, space_symbol_, " ");
  if (byte_level_) text = from_byte_symbols(text).value_or(text);
  return ends_word ? text + " " : text;
}

std::string Detokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string text;
  for (const int32_t id : ids) {
    const auto index = static_cast<size_t>(id);
    if (id < 0 || index >= kinds_.size() || kinds_[index] == kUnused)
      fail(ErrorKind::kRequest, "the vocabulary of {} ids has no token with id {}", kinds_.size(), id);
    if (skip_special && kinds_[index] == kSpecial) continue;
    text.append(bytes_, offsets_[index], offsets_[index + 1] - offsets_[index]);
  }
  size_t left = 0;
  while (left < strip_left_ && left < text.size() && text[left] == ' ') ++left;
  text.erase(0, left);
  const size_t strip_right = strip_right_ + (word_end_.empty() ? 0 : 1);
  for (size_t i = 0; i < strip_right && text.ends_with(' '); ++i) text.pop_back();
  return text;
}

}  // namespace fathom
