// What a sound file says of itself before any of it is decoded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace fathom {

enum class AudioFormat { kWav, kFlac, kOgg, kMp3 };
const char* audio_format_name(AudioFormat format);  ///< "WAV", "FLAC", "Ogg", "MP3"

/// Told by the first bytes, never by name. Errors (kData): empty, or something else, which is named where it
/// is known.
AudioFormat detect_audio_format(std::span<const std::byte> bytes, const std::string& source);

/// The samples of a WAV file as its chunks announce them; codecs quietly take what is left of a file that was
/// cut off.
struct WavClaim {
  int64_t sample_rate = 0;
  int64_t bytes_per_second = 0;
  int64_t announced_bytes = 0;  ///< of sound
  int64_t present_bytes = 0;
  bool is_cut() const { return present_bytes < announced_bytes; }
};

/// RF64 too. Nothing where the announced size is a placeholder (0xFFFFFFFF and its like: a stream of unknown
/// length), or where there is no format or data chunk: the codec will say what is wrong.
std::optional<WavClaim> read_wav_claim(std::span<const std::byte> bytes);

/// The frames of an MP3 file. Codecs guess the length of a file without a Xing header from its first frames,
/// and take no more than that.
struct Mp3Claim {
  int64_t sample_rate = 0;
  int64_t present_samples = 0;    ///< in whole frames, the encoder's delay and padding included
  int64_t announced_samples = 0;  ///< by a Xing header; 0 without one
  bool ends_within_frame = false;
  bool is_cut() const { return ends_within_frame || present_samples < announced_samples; }
};

/// Nothing where the file does not begin (behind an ID3 tag) with a frame of layer III.
std::optional<Mp3Claim> read_mp3_claim(std::span<const std::byte> bytes);

/// Whether the last page of an Ogg file is whole, and marked as the last one of its stream.
bool ends_with_last_ogg_page(std::span<const std::byte> bytes);

}  // namespace fathom
