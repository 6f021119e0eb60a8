// tokenizer.json in and out. Layout: https://huggingface.co/docs/tokenizers, `Tokenizer.to_str`.
#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "data/tokenizer/spec.h"

namespace fathom {
namespace {

using TokensById = std::unordered_map<std::string_view, int32_t>;

bool flag(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value && !value->is_null() && value->as_bool();
}

std::string text_or_empty(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value && !value->is_null() ? value->as_string() : std::string();
}

Json section(const Json& root, std::string_view key) {
  const Json* value = root.find(key);
  return value ? *value : Json();
}

/// Checks ids before anything is sized by them: a short file must not ask for much memory.
int32_t checked_id(const Json& value, std::string_view token, size_t num_tokens) {
  const int64_t id = value.as_int();
  const auto limit = static_cast<int64_t>(64 * num_tokens + 65536);
  if (id < 0 || id >= std::min<int64_t>(limit, INT32_MAX))
    fail(ErrorKind::kData, "token \"{}\" has id {}, which a vocabulary of {} tokens cannot have", token, id,
         num_tokens);
  return static_cast<int32_t>(id);
}

void place(TokenizerSpec& spec, int32_t id, const std::string& token) {
  if (static_cast<size_t>(id) >= spec.tokens.size()) spec.tokens.resize(static_cast<size_t>(id) + 1);
  std::string& slot = spec.tokens[static_cast<size_t>(id)];
  if (!slot.empty() && slot != token)
    fail(ErrorKind::kData, "tokens \"{}\" and \"{}\" share id {}", slot, token, id);
  slot = token;
}

TokensById read_vocabulary(TokenizerSpec& spec, const Json& vocab, size_t num_added) {
  TokensById vocabulary;
  const Json::Object& entries = vocab.as_object();
  vocabulary.reserve(entries.size());
  for (const auto& [token, value] : entries) {
    const int32_t id = checked_id(value, token, entries.size() + num_added);
    place(spec, id, token);
    if (!vocabulary.emplace(token, id).second)
      fail(ErrorKind::kData, "token \"{}\" appears twice in the vocabulary", token);
  }
  return vocabulary;
}

void read_added(TokenizerSpec& spec, const Json& list, const TokensById& vocabulary) {
  for (const Json& item : list.as_array()) {
    AddedToken token;
    token.text = item.at("content").as_string();
    if (token.text.empty()) fail(ErrorKind::kData, "added_tokens holds a token without text");
    token.id = checked_id(item.at("id"), token.text, vocabulary.size() + list.size());
    token.in_model = vocabulary.contains(token.text);
    token.special = flag(item, "special");
    token.normalized = flag(item, "normalized");
    token.single_word = flag(item, "single_word");
    token.lstrip = flag(item, "lstrip");
    token.rstrip = flag(item, "rstrip");
    place(spec, token.id, token.text);
    spec.added.push_back(std::move(token));
  }
}

/// A merge is written ["left", "right"] or, in older files, "left right".
std::pair<std::string, std::string> merge_parts(const Json& item) {
  if (item.is_array()) {
    if (item.size() != 2) fail(ErrorKind::kData, "a merge has {} parts, not 2", item.size());
    return {item.as_array()[0].as_string(), item.as_array()[1].as_string()};
  }
  const std::string& text = item.as_string();
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
    fail(ErrorKind::kData, "merge \"{}\" is not two tokens with a space between", text);
  return {text.substr(0, space), text.substr(space + 1)};
}

int32_t id_in(const TokensById& vocabulary, const std::string& token, size_t line) {
  const auto found = vocabulary.find(token);
  if (found == vocabulary.end())
    fail(ErrorKind::kData, "merge {} needs token \"{}\", which the vocabulary does not have", line, token);
  return found->second;
}

void read_merges(TokenizerSpec& spec, const Json::Array& merges, const TokensById& vocabulary) {
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto [left, right] = merge_parts(merges[i]);
    spec.merges.emplace_back(id_in(vocabulary, left, i), id_in(vocabulary, right, i));
    spec.merged.push_back(id_in(vocabulary, left + right, i));
  }
}

void check_model_options(const Json& model) {
  if (const Json* type = model.find("type"); type && !type->is_null() && type->as_string() != "BPE")
    fail(ErrorKind::kData, "model {} is not supported, only BPE is", type->as_string());
  if (!model.find("type") && !model.find("merges"))
    fail(ErrorKind::kData,
         "the model has no merges: WordPiece, WordLevel and Unigram are not supported, only BPE is");
  if (const Json* dropout = model.find("dropout");
      dropout && !dropout->is_null() && dropout->as_double() != 0)
    fail(ErrorKind::kData, "BPE dropout is not supported");
  if (!text_or_empty(model, "continuing_subword_prefix").empty())
    fail(ErrorKind::kData, "continuing_subword_prefix is not supported");
}

TokenizerSpec read_spec(const Json& root) {
  const Json& model = root.at("model");
  check_model_options(model);
  TokenizerSpec spec;
  const Json added = section(root, "added_tokens");
  const TokensById vocabulary = read_vocabulary(spec, model.at("vocab"), added.size());
  if (!added.is_null()) read_added(spec, added, vocabulary);
  read_merges(spec, model.at("merges").as_array(), vocabulary);
  spec.unknown_token = text_or_empty(model, "unk_token");
  spec.end_of_word_suffix = text_or_empty(model, "end_of_word_suffix");
  spec.fuse_unknown = flag(model, "fuse_unk");
  spec.byte_fallback = flag(model, "byte_fallback");
  spec.ignore_merges = flag(model, "ignore_merges");
  spec.normalizer = section(root, "normalizer");
  spec.pre_tokenizer = section(root, "pre_tokenizer");
  spec.post_processor = section(root, "post_processor");
  spec.decoder = section(root, "decoder");
  spec.truncation = section(root, "truncation");
  spec.padding = section(root, "padding");
  return spec;
}

Json added_to_json(const AddedToken& token) {
  Json item;
  item["id"] = static_cast<int64_t>(token.id);
  item["content"] = token.text;
  item["single_word"] = token.single_word;
  item["lstrip"] = token.lstrip;
  item["rstrip"] = token.rstrip;
  item["normalized"] = token.normalized;
  item["special"] = token.special;
  return item;
}

Json text_or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

Json vocabulary_to_json(const TokenizerSpec& spec) {
  std::vector<bool> only_added(spec.tokens.size(), false);
  for (const AddedToken& token : spec.added) only_added[static_cast<size_t>(token.id)] = !token.in_model;
  Json::Object vocabulary;
  for (size_t id = 0; id < spec.tokens.size(); ++id)
    if (!spec.tokens[id].empty() && !only_added[id])
      vocabulary.emplace_back(spec.tokens[id], static_cast<int64_t>(id));
  return vocabulary;
}

Json merges_to_json(const TokenizerSpec& spec) {
  Json::Array merges;
  for (const auto& [left, right] : spec.merges) {
    Json::Array pair;
    pair.emplace_back(spec.tokens[static_cast<size_t>(left)]);
    pair.emplace_back(spec.tokens[static_cast<size_t>(right)]);
    merges.emplace_back(std::move(pair));
  }
  return merges;
}

Json model_to_json(const TokenizerSpec& spec) {
  Json model;
  model["type"] = "BPE";
  model["dropout"] = Json();
  model["unk_token"] = text_or_null(spec.unknown_token);
  model["continuing_subword_prefix"] = Json();
  model["end_of_word_suffix"] = text_or_null(spec.end_of_word_suffix);
  model["fuse_unk"] = spec.fuse_unknown;
  model["byte_fallback"] = spec.byte_fallback;
  model["ignore_merges"] = spec.ignore_merges;
  model["vocab"] = vocabulary_to_json(spec);
  model["merges"] = merges_to_json(spec);
  return model;
}

}  // namespace

TokenizerSpec parse_tokenizer_json(std::string_view text, const std::string& source) {
  const Json root = parse_json(text, source);
  try {
    return read_spec(root);
  } catch (const Error& error) {
    throw Error(error.kind(), source + ": " + error.what());
  }
}

std::string to_tokenizer_json(const TokenizerSpec& spec) {
  Json root;
  root["version"] = "1.0";
  root["truncation"] = spec.truncation;
  root["padding"] = spec.padding;
  Json::Array added;
  for (const AddedToken& token : spec.added) added.push_back(added_to_json(token));
  root["added_tokens"] = std::move(added);
  root["normalizer"] = spec.normalizer;
  root["pre_tokenizer"] = spec.pre_tokenizer;
  root["post_processor"] = spec.post_processor;
  root["decoder"] = spec.decoder;
  root["model"] = model_to_json(spec);
  return root.dump(2) + "\n";
}

}  // namespace fathom
