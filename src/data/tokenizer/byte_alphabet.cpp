#include "data/tokenizer/byte_alphabet.h"

#include <array>

#include "data/tokenizer/unicode.h"

namespace fathom {
namespace {

constexpr int kNumSymbols = 256 + 68;  // 68 bytes are not printable in Latin-1

struct Alphabet {
  std::array<char32_t, 256> symbol{};
  std::array<int16_t, kNumSymbols> byte{};
  std::array<uint8_t, 256> by_rank{};
};

constexpr bool is_printable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr Alphabet kAlphabet = [] {
  Alphabet alphabet;
  alphabet.byte.fill(-1);
  char32_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    alphabet.symbol[byte] = is_printable(byte) ? static_cast<char32_t>(byte) : next++;
    alphabet.byte[alphabet.symbol[byte]] = static_cast<int16_t>(byte);
  }
  int rank = 0;
  for (const int16_t byte : alphabet.byte)
    if (byte >= 0) alphabet.by_rank[rank++] = static_cast<uint8_t>(byte);
  return alphabet;
}();

}  // namespace

std::string byte_symbol(uint8_t byte) {
  std::string symbol;
  unicode::append_utf8(symbol, kAlphabet.symbol[byte]);
  return symbol;
}

std::string to_byte_symbols(std::string_view bytes) {
  std::string symbols;
  for (const char byte : bytes) unicode::append_utf8(symbols, kAlphabet.symbol[static_cast<uint8_t>(byte)]);
  return symbols;
}

std::optional<std::string> from_byte_symbols(std::string_view symbols) {
  std::string bytes;
  const char* const end = symbols.data() + symbols.size();
  for (const char* p = symbols.data(); p < end;) {
    const unicode::CodePoint point = unicode::decode_utf8(p, end);
    if (point.value >= kNumSymbols || kAlphabet.byte[point.value] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.byte[point.value]);
    p += point.length;
  }
  return bytes;
}

uint8_t byte_of_rank(int rank) {
  return kAlphabet.by_rank[rank];
}

}  // namespace fathom
