#include "data/audio/encode.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace fathom {
namespace {

void append(std::string& out, uint32_t value, int num_bytes) {
  for (int i = 0; i < num_bytes; ++i) out += static_cast<char>(value >> (8 * i));
}

}  // namespace

std::string encode_wav(const Audio& audio) {
  constexpr uint32_t kBytes = 2;  // of a sample
  const auto rate = static_cast<uint32_t>(audio.sample_rate);
  const auto size = static_cast<uint32_t>(kBytes * audio.samples.size());
  std::string out = "RIFF";
  out.reserve(44 + size);
  append(out, 36 + size, 4);
  out += "WAVEfmt ";
  append(out, 16, 4);  // bytes of this chunk
  append(out, 1, 2);   // plain samples
  append(out, 1, 2);   // channels
  append(out, rate, 4);
  append(out, kBytes * rate, 4);
  append(out, kBytes, 2);
  append(out, 8 * kBytes, 2);
  out += "data";
  append(out, size, 4);
  for (const float sample : audio.samples) {
    const float value = std::isfinite(sample) ? std::clamp(sample, -1.0F, 1.0F) : 0.0F;
    append(out, static_cast<uint32_t>(std::lround(value * 32767.0F)), kBytes);
  }
  return out;
}

}  // namespace fathom
