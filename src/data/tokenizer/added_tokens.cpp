#include "data/tokenizer/added_tokens.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "data/tokenizer/scan.h"

namespace fathom {
namespace {

using unicode::CharClass;

/// Where the code point that ends at `at` begins; a byte of a broken sequence stands alone. REQUIRES: at > 0.
size_t previous_begin(std::string_view text, size_t at) {
  for (size_t length = std::min<size_t>(4, at); length > 1; --length) {
    const char* p = text.data() + at - length;
    if (unicode::decode_utf8(p, p + length).length == static_cast<int>(length)) return at - length;
  }
  return at - 1;
}

char32_t point_at(std::string_view text, size_t at) {
  return unicode::decode_utf8(text.data() + at, text.data() + text.size()).value;
}

size_t space_begin(std::string_view text, size_t from, size_t at) {
  while (at > from) {
    const size_t previous = previous_begin(text, at);
    if (previous < from || unicode::char_class(point_at(text, previous)) != CharClass::kSpace) break;
    at = previous;
  }
  return at;
}

bool inside_word(std::string_view text, size_t begin, size_t end) {
  const bool before = begin > 0 && unicode::is_word_char(point_at(text, previous_begin(text, begin)));
  return before || (end < text.size() && unicode::is_word_char(point_at(text, end)));
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::span<const AddedToken> tokens) {
  std::fill(std::begin(root_child_), std::end(root_child_), -1);
  for (const AddedToken& token : tokens) {
    insert(token.text, static_cast<int32_t>(tokens_.size()));
    tokens_.push_back(token);
    all_special_ = all_special_ && token.special;
  }
}

void AddedTokenMatcher::insert(std::string_view text, int32_t token) {
  int32_t node = -1;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    int32_t next = child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      Node made;
      made.byte = byte;
      if (node < 0)
        root_child_[byte] = next;
      else
        made.next_sibling = std::exchange(nodes_[static_cast<size_t>(node)].first_child, next);
      nodes_.push_back(made);
    }
    node = next;
  }
  nodes_[static_cast<size_t>(node)].token = token;
}

int32_t AddedTokenMatcher::child(int32_t node, uint8_t byte) const {
  if (node < 0) return root_child_[byte];
  int32_t next = nodes_[static_cast<size_t>(node)].first_child;
  while (next >= 0 && nodes_[static_cast<size_t>(next)].byte != byte)
    next = nodes_[static_cast<size_t>(next)].next_sibling;
  return next;
}

int32_t AddedTokenMatcher::longest_at(std::string_view text, size_t at) const {
  int32_t best = -1;
  int32_t node = -1;
  for (; at < text.size(); ++at) {
    node = child(node, static_cast<uint8_t>(text[at]));
    if (node < 0) break;
    if (nodes_[static_cast<size_t>(node)].token >= 0) best = nodes_[static_cast<size_t>(node)].token;
  }
  return best;
}

AddedTokenMatcher::Match AddedTokenMatcher::widened(std::string_view text, size_t from, size_t at,
                                                    const AddedToken& token) const {
  const size_t end = at + token.text.size();
  Match match{at, end, token.id, token.special};
  if (token.lstrip) match.begin = space_begin(text, from, at);
  if (token.rstrip) {
    const char* text_end = text.data() + text.size();
    match.end =
        static_cast<size_t>(scan::skip_class(text.data() + end, text_end, CharClass::kSpace) - text.data());
  }
  return match;
}

AddedTokenMatcher::Match AddedTokenMatcher::find(std::string_view text, size_t from,
                                                 bool with_special) const {
  const bool nothing_to_find = tokens_.empty() || (all_special_ && !with_special);
  for (size_t at = nothing_to_find ? text.size() : from; at < text.size(); ++at) {
    if (root_child_[static_cast<uint8_t>(text[at])] < 0) [[likely]]
      continue;
    const int32_t index = longest_at(text, at);
    if (index < 0) continue;
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    const size_t end = at + token.text.size();
    const bool refused =
        (token.special && !with_special) || (token.single_word && inside_word(text, at, end));
    if (!refused) return widened(text, from, at, token);
    at = end - 1;
  }
  return {text.size(), text.size(), -1, false};
}

}  // namespace fathom
