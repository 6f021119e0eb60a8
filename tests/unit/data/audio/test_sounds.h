// Sound files in memory, written by libsndfile, and what is compared with them.
#pragma once

#include <gtest/gtest.h>
#include <sndfile.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "bytes_of.h"

namespace fathom {

/// A sine of `hz`, `seconds` long, half of full scale.
inline std::vector<float> tone(double hz, double seconds, int64_t rate) {
  std::vector<float> samples(static_cast<size_t>(std::llround(seconds * static_cast<double>(rate))));
  for (size_t i = 0; i < samples.size(); ++i)
    samples[i] = static_cast<float>(
        0.5 * std::sin(2 * std::numbers::pi * hz * static_cast<double>(i) / static_cast<double>(rate)));
  return samples;
}

struct SoundFileShape {
  int format = SF_FORMAT_WAV | SF_FORMAT_PCM_16;
  int rate = 16000;
  int channels = 1;
  bool variable = false;  ///< bit rate (MP3)
};

/// A whole file of interleaved samples.
inline std::string encode_sound(const std::vector<float>& samples, const SoundFileShape& shape = {}) {
  struct Memory {
    std::string bytes;
    size_t place = 0;
  } memory;
  const auto of = [](void* self) -> Memory& { return *static_cast<Memory*>(self); };
  static const auto access = of;
  SF_VIRTUAL_IO calls = {[](void* self) { return static_cast<sf_count_t>(access(self).bytes.size()); },
                         [](sf_count_t offset, int from, void* self) {
                           Memory& m = access(self);
                           const auto base = static_cast<sf_count_t>(from == SEEK_SET   ? 0
                                                                     : from == SEEK_CUR ? m.place
                                                                                        : m.bytes.size());
                           m.place = static_cast<size_t>(base + offset);
                           return base + offset;
                         },
                         [](void* out, sf_count_t count, void* self) {
                           Memory& m = access(self);
                           const auto taken = std::min(static_cast<size_t>(count),
                                                       m.bytes.size() - std::min(m.place, m.bytes.size()));
                           std::memcpy(out, m.bytes.data() + m.place, taken);
                           m.place += taken;
                           return static_cast<sf_count_t>(taken);
                         },
                         [](const void* in, sf_count_t count, void* self) {
                           Memory& m = access(self);
                           m.bytes.resize(std::max(m.bytes.size(), m.place + static_cast<size_t>(count)));
                           std::memcpy(m.bytes.data() + m.place, in, static_cast<size_t>(count));
                           m.place += static_cast<size_t>(count);
                           return count;
                         },
                         [](void* self) { return static_cast<sf_count_t>(access(self).place); }};
  SF_INFO info{};
  info.format = shape.format;
  info.samplerate = shape.rate;
  info.channels = shape.channels;
  SNDFILE* file = sf_open_virtual(&calls, SFM_WRITE, &info, &memory);
  EXPECT_NE(file, nullptr) << sf_strerror(nullptr);
  if (!file) return "";
  int mode = shape.variable ? SF_BITRATE_MODE_VARIABLE : SF_BITRATE_MODE_CONSTANT;
  sf_command(file, SFC_SET_BITRATE_MODE, &mode, sizeof mode);
  sf_writef_float(file, samples.data(), static_cast<sf_count_t>(samples.size()) / shape.channels);
  sf_close(file);
  return memory.bytes;
}

/// The message of the kData error that `call` throws.
template <typename Call>
std::string data_error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(ErrorKind::kData)) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "accepted";
}

/// Part of `samples`' energy at `hz`, 1 for a pure tone.
inline double share_at(const std::vector<float>& samples, double hz, double rate) {
  double re = 0, im = 0, energy = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    const double turn = 2 * std::numbers::pi * hz * static_cast<double>(i) / rate;
    re += samples[i] * std::cos(turn);
    im += samples[i] * std::sin(turn);
    energy += static_cast<double>(samples[i]) * samples[i];
  }
  return 2 * (re * re + im * im) / (energy * static_cast<double>(samples.size()));
}

}  // namespace fathom
