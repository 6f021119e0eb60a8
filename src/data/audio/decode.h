// Sound files in memory → one channel of samples at the rate a model hears.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "data/audio/container.h"
#include "data/sample.h"

namespace fathom {

/// What a recording must be to be read at all; everything else is refused before memory is taken for it.
struct AudioLimits {
  double max_seconds = 600;
  int64_t max_channels = 32;
  int64_t max_rate = 768000;  ///< samples a second
  bool strict = true;         ///< a file that ends early is an error, not a shorter recording
};

/// What a file's header says.
struct AudioHeader {
  AudioFormat format = AudioFormat::kWav;
  int64_t sample_rate = 0;
  int64_t num_channels = 0;
  int64_t num_frames = -1;  ///< samples of each channel; −1 where the file does not say
  double seconds() const { return static_cast<double>(num_frames) / static_cast<double>(sample_rate); }
};

/// Reads the header alone. Errors (kData) name `source`: empty, not a sound file of ours, a broken header, no
/// samples, longer than the limit (as announced, whatever is there), too many channels, a rate out of range,
/// cut off.
AudioHeader read_audio_header(std::span<const std::byte> bytes, const std::string& source,
                              const AudioLimits& limits = {});

/// The mean of all channels, resampled to `sample_rate` (0: the file's own) while it is decoded, so that
/// memory is bounded by the limit whatever the file holds. Errors (kData): as `read_audio_header`; a
/// decoder's complaint; samples that are no numbers, or a million times full scale; (strict) fewer samples
/// than announced.
Audio decode_audio(std::span<const std::byte> bytes, const std::string& source, int64_t sample_rate,
                   const AudioLimits& limits = {});

/// `decode_audio` of a file, which is mapped: one that its header refuses is not read. Errors (kData): also a
/// missing or unreadable file.
Audio load_audio(const std::string& path, int64_t sample_rate, const AudioLimits& limits = {});

}  // namespace fathom
