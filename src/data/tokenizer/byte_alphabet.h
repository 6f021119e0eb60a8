// GPT-2's printable stand-ins for bytes: how byte-level vocabularies are written in tokenizer.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fathom {

/// UTF-8 text that stands for one byte: printable Latin-1 bytes for themselves, the others for U+0100,
/// U+0101, …
std::string byte_symbol(uint8_t byte);
/// The stand-ins of every byte of `bytes`.
std::string to_byte_symbols(std::string_view bytes);
/// Bytes that `symbols` stands for; nothing if it holds a character that stands for no byte.
std::optional<std::string> from_byte_symbols(std::string_view symbols);
/// The byte at a place in the order in which GPT-2 numbers bytes: by their stand-ins. REQUIRES: 0 <= rank <
/// 256.
uint8_t byte_of_rank(int rank);

}  // namespace fathom
