#include "data/tokenizer/tokenizer.h"

#include <algorithm>
#include <initializer_list>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "data/tokenizer/detokenizer.h"
#include "data/tokenizer/encoder.h"
#include "data/tokenizer/post_processor.h"
#include "data/tokenizer/spec.h"

namespace fathom {
namespace {

std::unordered_map<std::string_view, int32_t> index_of(const TokenizerSpec& spec) {
  std::unordered_map<std::string_view, int32_t> index;
  for (const AddedToken& token : spec.added) index.emplace(token.text, token.id);
  for (size_t id = 0; id < spec.tokens.size(); ++id)
    if (!spec.tokens[id].empty()) index.emplace(spec.tokens[id], static_cast<int32_t>(id));
  return index;
}

}  // namespace

struct Tokenizer::State {
  explicit State(TokenizerSpec description)
      : spec(std::move(description)),
        encoder(spec),
        detokenizer(spec, encoder.byte_level()),
        affixes(read_affixes(spec.post_processor, static_cast<int64_t>(spec.tokens.size()))),
        index(index_of(spec)) {}

  std::optional<int32_t> first_of(std::initializer_list<const char*> tokens) const {
    for (const char* token : tokens)
      if (const auto found = index.find(token); found != index.end()) return found->second;
    return std::nullopt;
  }

  const TokenizerSpec spec;  // the others refer to it
  const Encoder encoder;
  const Detokenizer detokenizer;
  const Affixes affixes;
  const std::unordered_map<std::string_view, int32_t> index;
};

Tokenizer::Tokenizer(TokenizerSpec spec) : state_(std::make_unique<const State>(std::move(spec))) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_file(const std::string& path) {
  return from_json(read_file(path), path);
}

Tokenizer Tokenizer::from_json(std::string_view text, const std::string& source) {
  TokenizerSpec spec = parse_tokenizer_json(text, source);
  try {
    return Tokenizer(std::move(spec));
  } catch (const Error& error) {
    throw Error(error.kind(),
                source + ": " + error.what());  // the steps do not know which file they come from
  }
}

void Tokenizer::encode(std::string_view text, std::vector<int32_t>& out, bool recognise_special) const {
  state_->encoder.encode(text, recognise_special, out);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool recognise_special) const {
  std::vector<int32_t> ids;
  encode(text, ids, recognise_special);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  return state_->detokenizer.decode(ids, skip_special);
}

int64_t Tokenizer::vocab_size() const {
  return static_cast<int64_t>(state_->spec.tokens.size());
}

std::optional<int32_t> Tokenizer::token_id(std::string_view token) const {
  const auto found = state_->index.find(token);
  return found == state_->index.end() ? std::nullopt : std::optional(found->second);
}

std::optional<int32_t> Tokenizer::end_of_text() const {
  return state_->first_of({"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"});
}

std::optional<int32_t> Tokenizer::padding() const {
  return state_->first_of({"<|pad|>", "<pad>", "[PAD]"});
}

std::optional<int32_t> Tokenizer::mask() const {
  return state_->first_of({"<|mask|>", "<mask>", "[MASK]"});
}

const std::vector<int32_t>& Tokenizer::prefix() const {
  return state_->affixes.prefix;
}
const std::vector<int32_t>& Tokenizer::suffix() const {
  return state_->affixes.suffix;
}

std::optional<int32_t> Tokenizer::start_of_text() const {
  return prefix().empty() ? end_of_text() : prefix().back();
}

std::string Tokenizer::to_json() const {
  return to_tokenizer_json(state_->spec);
}
void Tokenizer::save(const std::string& path) const {
  write_file_atomically(path, to_json());
}

}  // namespace fathom
