#include "data/audio/decode.h"

#include <sndfile.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "data/audio/resample.h"
#include "data/media_file.h"

namespace fathom {
namespace {

constexpr int64_t kBlockSamples = 1 << 15;  ///< of all channels together
constexpr int64_t kMinRate = 100;
constexpr float kLoudest = 1e6F;  ///< of full scale: some write 16-bit numbers as floats, but none write more

/// A file in memory, as libsndfile reads it.
struct MemoryFile {
  std::span<const std::byte> bytes;
  sf_count_t place = 0;

  static MemoryFile& of(void* self) { return *static_cast<MemoryFile*>(self); }
  static sf_count_t size(void* self) { return static_cast<sf_count_t>(of(self).bytes.size()); }
  static sf_count_t tell(void* self) { return of(self).place; }
  static sf_count_t seek(sf_count_t offset, int from, void* self) {
    const sf_count_t base = from == SEEK_SET ? 0 : from == SEEK_CUR ? tell(self) : size(self);
    if (offset < -base || offset > size(self) - base) return -1;
    return of(self).place = base + offset;
  }
  static sf_count_t read(void* out, sf_count_t count, void* self) {
    MemoryFile& file = of(self);
    const sf_count_t taken = std::clamp<sf_count_t>(size(self) - file.place, 0, count);
    std::memcpy(out, file.bytes.data() + file.place, static_cast<size_t>(taken));
    file.place += taken;
    return taken;
  }
  static sf_count_t write(const void*, sf_count_t, void*) { return 0; }
};

/// One open sound file. The bytes must outlive it.
class SoundFile {
 public:
  SoundFile(std::span<const std::byte> bytes, const std::string& source) : memory_{bytes}, source_(source) {
    SF_VIRTUAL_IO calls = {MemoryFile::size, MemoryFile::seek, MemoryFile::read, MemoryFile::write,
                           MemoryFile::tell};
    file_.reset(sf_open_virtual(&calls, SFM_READ, &info_, &memory_));
    if (!file_) {
      // The library ends its messages with a full stop or a line end.
      std::string reason = sf_strerror(nullptr);
      while (!reason.empty() && (reason.back() == '.' || reason.back() == '\n')) reason.pop_back();
      fail(ErrorKind::kData, "{}: a broken header ({})", source, reason);
    }
  }

  const SF_INFO& info() const { return info_; }
  AudioFormat format() const {
    switch (info_.format & SF_FORMAT_TYPEMASK) {
      case SF_FORMAT_WAV:
      case SF_FORMAT_WAVEX:
      case SF_FORMAT_RF64:
        return AudioFormat::kWav;
      case SF_FORMAT_FLAC:
        return AudioFormat::kFlac;
      case SF_FORMAT_OGG:
        return AudioFormat::kOgg;
      case SF_FORMAT_MPEG:
        return AudioFormat::kMp3;
      default:
        fail(ErrorKind::kData, "{}: expected a WAV, FLAC, Ogg or MP3 file inside", source_);
    }
  }
  /// Whole frames, as many as there are up to `samples`.
  int64_t read(std::span<float> samples) {
    const int64_t frames =
        sf_readf_float(file_.get(), samples.data(), static_cast<sf_count_t>(samples.size()) / info_.channels);
    if (const int error = sf_error(file_.get()); error != SF_ERR_NO_ERROR)
      fail(ErrorKind::kData, "{}: {}", source_, sf_strerror(file_.get()));
    return frames;
  }

 private:
  struct Close {
    void operator()(SNDFILE* file) const { sf_close(file); }
  };
  MemoryFile memory_;
  const std::string& source_;
  SF_INFO info_{};
  std::unique_ptr<SNDFILE, Close> file_;
};

void check_length(int64_t frames, int64_t rate, const std::string& source, const AudioLimits& limits) {
  const double seconds = static_cast<double>(frames) / static_cast<double>(rate);
  if (seconds > limits.max_seconds)
    fail(ErrorKind::kData, "{}: {:.1f} seconds are more than the limit of {:g}", source, seconds,
         limits.max_seconds);
}

/// Before a codec sees the file: what it announces, and whether it is all there.
void check_claims(AudioFormat format, std::span<const std::byte> bytes, const std::string& source,
                  const AudioLimits& limits) {
  if (format == AudioFormat::kWav) {
    const auto claim = read_wav_claim(bytes);
    if (!claim) return;
    if (claim->bytes_per_second > 0)
      check_length(claim->announced_bytes, claim->bytes_per_second, source, limits);
    if (limits.strict && claim->is_cut())
      fail(ErrorKind::kData, "{}: the file is cut off: {} bytes of sound announced, {} there", source,
           claim->announced_bytes, claim->present_bytes);
  }
  if (format == AudioFormat::kMp3) {
    const auto claim = read_mp3_claim(bytes);
    if (!claim) return;
    check_length(std::max(claim->present_samples, claim->announced_samples), claim->sample_rate, source,
                 limits);
    if (limits.strict && claim->is_cut()) fail(ErrorKind::kData, "{}: the file is cut off", source);
  }
  if (format == AudioFormat::kOgg && limits.strict && !ends_with_last_ogg_page(bytes))
    fail(ErrorKind::kData, "{}: the file is cut off: its last page is missing", source);
}

AudioHeader check_header(const SoundFile& file, const std::string& source, const AudioLimits& limits) {
  const SF_INFO& info = file.info();
  AudioHeader header{.format = file.format(), .sample_rate = info.samplerate, .num_channels = info.channels};
  if (header.num_channels < 1 || header.num_channels > limits.max_channels)
    fail(ErrorKind::kData, "{}: {} channels, expected 1 to {}", source, header.num_channels,
         limits.max_channels);
  if (header.sample_rate < kMinRate || header.sample_rate > limits.max_rate)
    fail(ErrorKind::kData, "{}: {} samples a second, expected {} to {}", source, header.sample_rate, kMinRate,
         limits.max_rate);
  if (info.frames == 0) fail(ErrorKind::kData, "{}: the recording is empty", source);
  if (info.frames > 0 && info.frames < SF_COUNT_MAX) {
    header.num_frames = info.frames;
    check_length(header.num_frames, header.sample_rate, source, limits);
  }
  return header;
}

/// Whether all of a file came out of its decoder.
void check_complete(int64_t frames, const AudioHeader& header, std::span<const std::byte> bytes,
                    const std::string& source) {
  if (header.format != AudioFormat::kMp3) {
    if (frames < header.num_frames)
      fail(ErrorKind::kData, "{}: the file is cut off: {} samples announced, {} there", source,
           header.num_frames, frames);
    return;
  }
  constexpr int64_t kDelayAndPadding = 4 * 1152;  // at most, which a decoder leaves out
  const auto claim = read_mp3_claim(bytes);
  if (claim && frames + kDelayAndPadding < claim->present_samples)
    fail(ErrorKind::kData,
         "{}: only {} of {} samples can be decoded (a variable bit rate without a Xing header?)", source,
         frames, claim->present_samples);
}

/// The mean of interleaved channels, in place of the first samples.
void mix_down(std::span<float> samples, int64_t channels) {
  if (channels == 1) return;
  const float share = 1.0F / static_cast<float>(channels);
  const float* in = samples.data();
  for (float *out = samples.data(), *end = out + samples.size() / static_cast<size_t>(channels); out != end;
       ++out) {
    float sum = 0;
    for (int64_t c = 0; c < channels; ++c) sum += *in++;
    *out = sum * share;
  }
}

void check_numbers(std::span<const float> samples, int64_t first, const std::string& source) {
  for (size_t i = 0; i < samples.size(); ++i)
    if (!(std::abs(samples[i]) <= kLoudest))
      fail(ErrorKind::kData, "{}: sample {} is {:g}, full scale is 1", source,
           first + static_cast<int64_t>(i), samples[i]);
}

}  // namespace

AudioHeader read_audio_header(std::span<const std::byte> bytes, const std::string& source,
                              const AudioLimits& limits) {
  check_claims(detect_audio_format(bytes, source), bytes, source, limits);
  return check_header(SoundFile(bytes, source), source, limits);
}

Audio decode_audio(std::span<const std::byte> bytes, const std::string& source, int64_t sample_rate,
                   const AudioLimits& limits) {
  check_claims(detect_audio_format(bytes, source), bytes, source, limits);
  SoundFile file(bytes, source);
  const AudioHeader header = check_header(file, source, limits);
  Audio audio{.sample_rate = sample_rate > 0 ? sample_rate : header.sample_rate};
  Resampler resampler(header.sample_rate, audio.sample_rate);
  std::vector<float> block(static_cast<size_t>(kBlockSamples / header.num_channels * header.num_channels));
  int64_t frames = 0;
  while (const int64_t count = file.read(block)) {
    check_length(frames + count, header.sample_rate, source, limits);
    mix_down({block.data(), static_cast<size_t>(count * header.num_channels)}, header.num_channels);
    const std::span<const float> mono(block.data(), static_cast<size_t>(count));
    check_numbers(mono, frames, source);
    resampler.feed(mono, audio.samples);
    frames += count;
  }
  if (frames == 0) fail(ErrorKind::kData, "{}: the recording is empty", source);
  if (limits.strict) check_complete(frames, header, bytes, source);
  resampler.finish(audio.samples);
  return audio;
}

Audio load_audio(const std::string& path, int64_t sample_rate, const AudioLimits& limits) {
  const MappedMedia media(path);
  return decode_audio(media.bytes(), path, sample_rate, limits);
}

}  // namespace fathom
