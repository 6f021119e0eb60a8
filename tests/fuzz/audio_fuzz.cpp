// Any bytes: a recording or an Error, in bounded memory; the header refuses nothing that decoding takes.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "data/audio/decode.h"
#include "data/audio/log_mel.h"

namespace {

constexpr fathom::AudioLimits kStrict = {.max_seconds = 5, .max_channels = 8};
constexpr fathom::AudioLimits kLenient = {.max_seconds = 5, .max_channels = 8, .strict = false};

template <typename Call>
bool accepts(const Call& call) {
  try {
    call();
    return true;
  } catch (const fathom::Error& error) {
    if (error.kind() != fathom::ErrorKind::kData) throw;
    return false;
  }
}

}  // namespace

/// libsndfile 1.2 loses what libvorbis holds when a Vorbis header turns out to be broken.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libvorbis\nleak:libsndfile\n";
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const bool header = accepts([&] { fathom::read_audio_header(bytes, "fuzz", kStrict); });
  const bool whole = accepts([&] { fathom::decode_audio(bytes, "fuzz", 16000, kStrict); });
  if (whole && !header) __builtin_trap();
  accepts([&] {
    const fathom::Audio audio = fathom::decode_audio(bytes, "fuzz", 16000, kLenient);
    if (audio.samples.size() > 5 * 16000 + 16) __builtin_trap();
    for (const float value : fathom::LogMel(80).compute(audio.samples).values)
      if (std::isnan(value)) __builtin_trap();
  });
  return 0;
}
