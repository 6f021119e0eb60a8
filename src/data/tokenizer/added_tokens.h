// Added and special tokens, found in text by a trie.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "data/tokenizer/spec.h"

namespace fathom {

/// Finds tokens in text, leftmost and then longest, as `tokenizers` does. Immutable, safe from many threads.
class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin, end;  ///< bytes, widened over spaces where the token strips them
    int32_t id;
    bool special;
  };

  explicit AddedTokenMatcher(std::span<const AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  /// First token at or after `from`; special ones only if `with_special`. Nothing: `id` is -1 and `begin` is
  /// the text's end. `from` also limits how far spaces are stripped to the left.
  Match find(std::string_view text, size_t from, bool with_special) const;

 private:
  struct Node {
    int32_t first_child = -1, next_sibling = -1;
    int32_t token = -1;  ///< index of the token that ends here
    uint8_t byte = 0;
  };

  void insert(std::string_view text, int32_t token);
  int32_t child(int32_t node, uint8_t byte) const;
  int32_t longest_at(std::string_view text, size_t at) const;
  Match widened(std::string_view text, size_t from, size_t at, const AddedToken& token) const;

  std::vector<AddedToken> tokens_;
  bool all_special_ = true;
  std::vector<Node> nodes_;
  int32_t root_child_[256];  ///< the first step, taken at every byte of the text
};

}  // namespace fathom
