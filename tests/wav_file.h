// WAV files as bytes, without a codec.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace fathom {

/// One channel of 16 bits.
inline std::string wav_file(std::span<const int16_t> samples, uint32_t rate) {
  const auto bytes = static_cast<uint32_t>(2 * samples.size());
  std::string out;
  const auto append = [&](uint32_t value, int count) {
    for (int i = 0; i < count; ++i) out += static_cast<char>(value >> (8 * i));
  };
  out += "RIFF";
  append(36 + bytes, 4);
  out += "WAVEfmt ";
  append(16, 4);  // bytes of this chunk
  append(1, 2);   // plain samples
  append(1, 2);   // channels
  append(rate, 4);
  append(2 * rate, 4);  // bytes a second
  append(2, 2);         // bytes of a frame
  append(16, 2);        // bits
  out += "data";
  append(bytes, 4);
  for (const int16_t sample : samples) append(static_cast<uint16_t>(sample), 2);
  return out;
}

}  // namespace fathom
