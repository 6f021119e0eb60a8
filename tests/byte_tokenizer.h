// A tokenizer without merges, for models small enough to reason about.
#pragma once

#include <cstdio>
#include <string>

#include "data/tokenizer/tokenizer.h"

namespace fathom {

/// Single bytes and an end-of-text token: token ids are the bytes' own places.
inline Tokenizer byte_tokenizer() {
  std::string vocab;
  // GPT-2's byte symbols: printable bytes stand for themselves, the others for U+0100 onwards.
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int symbol = printable ? byte : next++;
    char escaped[16];
    std::snprintf(escaped, sizeof escaped, "\\u%04x", symbol);
    vocab += "\"" + std::string(escaped) + "\":" + std::to_string(byte) + ",";
  }
  vocab.pop_back();
  return Tokenizer::from_json(
      R"({"added_tokens":[{"id":256,"content":"<|endoftext|>","special":true,"single_word":false,"lstrip":false,)"
      R"("rstrip":false,"normalized":false}],"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)"
      R"("decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{)" +
          vocab + R"(},"merges":[]}})",
      "bytes");
}

}  // namespace fathom
