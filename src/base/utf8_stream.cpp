#include "base/utf8_stream.h"

#include <algorithm>
#include <cstdint>

namespace fathom {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// A sequence at the start of some bytes: how many of them belong together, and whether they are a character.
struct Sequence {
  size_t size = 1;
  enum { kCharacter, kBroken, kUnfinished } state = kBroken;
};

/// Bounds of the second byte rule out overlong forms, surrogates and what lies beyond U+10FFFF (RFC 3629).
struct LeadByte {
  size_t size;
  uint8_t second_low, second_high;
};

LeadByte lead_byte(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {1, 0, 0};
}

Sequence first_sequence(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  if (byte(0) < 0x80) return {1, Sequence::kCharacter};
  const LeadByte lead = lead_byte(byte(0));
  if (lead.size == 1) return {1, Sequence::kBroken};
  for (size_t i = 1; i < lead.size; ++i) {
    if (i == bytes.size()) return {i, Sequence::kUnfinished};
    const uint8_t low = i == 1 ? lead.second_low : 0x80, high = i == 1 ? lead.second_high : 0xBF;
    if (byte(i) < low || byte(i) > high) return {i, Sequence::kBroken};
  }
  return {lead.size, Sequence::kCharacter};
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string text;
  size_t done = 0;
  while (done < pending_.size()) {
    const Sequence sequence = first_sequence(std::string_view(pending_).substr(done));
    if (sequence.state == Sequence::kUnfinished) break;
    text += sequence.state == Sequence::kCharacter ? std::string_view(pending_).substr(done, sequence.size)
                                                   : kReplacement;
    done += sequence.size;
  }
  pending_.erase(0, done);
  return text;
}

std::string Utf8Stream::finish() {
  const bool unfinished = !pending_.empty();
  pending_.clear();
  return std::string(unfinished ? kReplacement : "");
}

}  // namespace fathom
