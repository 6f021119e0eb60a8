// Sound files of every format become one channel at one rate; what is broken is named.
#include "data/audio/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/random.h"
#include "data/audio/resample.h"
#include "data/media_file.h"
#include "peak_memory.h"
#include "temporary_folder.h"
#include "test_sounds.h"

namespace fathom::audio_decode_test {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

struct FormatCase {
  const char* name;
  AudioFormat format;
  int code;
  double least_share;  ///< of the tone in what comes out
};
const FormatCase kCases[] = {
    {"wav", AudioFormat::kWav, SF_FORMAT_WAV | SF_FORMAT_PCM_16, 0.9999},
    {"wav24", AudioFormat::kWav, SF_FORMAT_WAV | SF_FORMAT_PCM_24, 0.9999},
    {"wavfloat", AudioFormat::kWav, SF_FORMAT_WAV | SF_FORMAT_FLOAT, 0.9999},
    {"wavex", AudioFormat::kWav, SF_FORMAT_WAVEX | SF_FORMAT_PCM_16, 0.9999},
    {"rf64", AudioFormat::kWav, SF_FORMAT_RF64 | SF_FORMAT_PCM_16, 0.9999},
    {"flac", AudioFormat::kFlac, SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 0.9999},
    {"vorbis", AudioFormat::kOgg, SF_FORMAT_OGG | SF_FORMAT_VORBIS, 0.98},
    {"opus", AudioFormat::kOgg, SF_FORMAT_OGG | SF_FORMAT_OPUS, 0.9},
    {"mp3", AudioFormat::kMp3, SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 0.85},
};

std::string error_of(const std::string& content, const AudioLimits& limits = {}) {
  const std::string found = data_error_of([&] { decode_audio(bytes_of(content), "x.wav", 16000, limits); });
  const std::string by_header = data_error_of([&] { read_audio_header(bytes_of(content), "x.wav", limits); });
  if (by_header != "accepted") {
    EXPECT_EQ(found, by_header) << "the header says it already";
  }
  return found;
}

TEST(AudioDecode, ReadsEveryFormatAtEveryRate) {
  for (const FormatCase& c : kCases) {
    for (const int rate : {8000, 16000, 44100, 48000}) {
      if (c.code == (SF_FORMAT_OGG | SF_FORMAT_OPUS) && rate == 44100) continue;  // no rate of Opus
      SCOPED_TRACE(fmt::format("{} at {}", c.name, rate));
      const std::string content = encode_sound(tone(440, 1.0, rate), {c.code, rate, 1});
      const AudioHeader header = read_audio_header(bytes_of(content), c.name);
      EXPECT_EQ(header.format, c.format);
      EXPECT_EQ(header.sample_rate, rate);
      EXPECT_EQ(header.num_channels, 1);
      const Audio audio = decode_audio(bytes_of(content), c.name, 16000);
      EXPECT_EQ(audio.sample_rate, 16000);
      EXPECT_NEAR(static_cast<double>(audio.samples.size()), 16000, c.format == AudioFormat::kMp3 ? 3000 : 2);
      EXPECT_GT(share_at(audio.samples, 440, 16000), c.least_share);
    }
  }
}

TEST(AudioDecode, MixesChannelsAndKeepsTheRateIfAsked) {
  const std::vector<float> left = tone(300, 0.3, 22050), right = tone(900, 0.3, 22050);
  std::vector<float> both;
  for (size_t i = 0; i < left.size(); ++i) both.insert(both.end(), {left[i], right[i], 0.0F});
  const std::string content = encode_sound(both, {SF_FORMAT_WAV | SF_FORMAT_FLOAT, 22050, 3});
  const Audio audio = decode_audio(bytes_of(content), "three", 0);
  EXPECT_EQ(audio.sample_rate, 22050);
  ASSERT_EQ(audio.samples.size(), left.size());
  for (size_t i = 0; i < left.size(); ++i) ASSERT_NEAR(audio.samples[i], (left[i] + right[i]) / 3, 1e-6);
}

TEST(AudioDecode, RefusesWhatIsNoSoundOfOurs) {
  EXPECT_EQ(error_of(""), "x.wav: the file is empty");
  EXPECT_THAT(error_of("abc"), HasSubstr("found only a few bytes"));
  EXPECT_THAT(
      error_of("this is text, not sound"),
      HasSubstr("expected a WAV, FLAC, Ogg or MP3 file, found a file that begins with \"this is text, no\""));
  EXPECT_THAT(error_of(std::string("\0\0\0\x18", 4) + "ftypM4A ......."), HasSubstr("an MP4 or M4A file"));
  EXPECT_THAT(error_of("\x89PNG\r\n\x1A\n........"), HasSubstr("an image"));
  EXPECT_THAT(error_of("RIFF....AVI LIST........"), HasSubstr("a RIFF file that is no WAV"));
  EXPECT_THAT(error_of("RIFF....WAVEjunk"), HasSubstr("x.wav: a broken header"));
  EXPECT_THAT(error_of("fLaC" + std::string(60, '\0')), HasSubstr("x.wav: "));
  EXPECT_THAT(error_of("OggS" + std::string(60, '\0')), HasSubstr("x.wav: "));
  EXPECT_THAT(error_of("\xFF\xFB\x90\x64" + std::string(60, '\0')), HasSubstr("x.wav: "));
}

TEST(AudioDecode, RefusesEmptyRecordings) {
  for (const int code : {SF_FORMAT_WAV | SF_FORMAT_PCM_16, SF_FORMAT_FLAC | SF_FORMAT_PCM_16,
                         SF_FORMAT_OGG | SF_FORMAT_VORBIS})
    EXPECT_NE(error_of(encode_sound({}, {code, 16000, 1})), "accepted") << code;
  EXPECT_EQ(error_of(encode_sound({})), "x.wav: the recording is empty");
}

/// Changes a WAV file's data chunk to announce `bytes`.
std::string announcing(std::string content, uint32_t bytes) {
  const size_t at = content.find("data");
  std::memcpy(content.data() + at + 4, &bytes, 4);
  return content;
}

TEST(AudioDecode, RefusesADayByItsHeaderAlone) {
  const std::string second = encode_sound(tone(440, 1.0, 8000), {.rate = 8000});
  const uint32_t day = 24 * 3600 * 8000 * 2;
  const std::string message = "x.wav: 86400.0 seconds are more than the limit of 600";
  EXPECT_EQ(error_of(announcing(second, day)), message);
  EXPECT_EQ(error_of(announcing(second, day), {.strict = false}), message);
  for (const uint32_t rate : {16000U, 22050U}) {  // 2.8 and 3.8 GB
    const std::string wide =
        encode_sound(tone(440, 1.0, static_cast<int>(rate)), {.rate = static_cast<int>(rate)});
    EXPECT_EQ(error_of(announcing(wide, 24 * 3600 * rate * 2)), message);
  }
  EXPECT_EQ(error_of(second, {.max_seconds = 0.9}), "x.wav: 1.0 seconds are more than the limit of 0.9");
  EXPECT_EQ(error_of(second, {.max_seconds = 1.0}), "accepted");

  // FLAC: the number of samples is 36 bits of the first block.
  std::string flac = encode_sound(tone(440, 1.0, 8000), {SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 8000, 1});
  const uint64_t samples = uint64_t{24} * 3600 * 8000;
  for (int i = 0; i < 4; ++i) flac[static_cast<size_t>(22 + i)] = static_cast<char>(samples >> (8 * (3 - i)));
  EXPECT_EQ(error_of(flac), message);
}

TEST(AudioDecode, RefusesADayOfRf64) {
  std::string sound = encode_sound(tone(440, 1.0, 48000), {SF_FORMAT_RF64 | SF_FORMAT_PCM_16, 48000, 1});
  const uint64_t day = uint64_t{24} * 3600 * 48000 * 2;
  const size_t sizes = sound.find("ds64") + 8;
  std::memcpy(sound.data() + sizes + 8, &day, 8);  // behind the file's
  const uint32_t wide = 0xFFFFFFFF;
  std::memcpy(sound.data() + sound.find("data") + 4, &wide, 4);
  EXPECT_EQ(error_of(sound), "x.wav: 86400.0 seconds are more than the limit of 600");
  EXPECT_THAT(error_of(sound, {.max_seconds = 1e5}), HasSubstr("cut off"));
}

TEST(AudioDecode, RefusesADayBeforeMemoryIsTakenForIt) {
  const TemporaryFolder folder;
  const uint32_t day = 24 * 3600 * 8000 * 2;
  const std::string path = folder / "day.wav";
  write_file_atomically(path, announcing(encode_sound(tone(440, 1.0, 8000), {.rate = 8000}), day));
  std::filesystem::resize_file(path, uint64_t{day} + 44);  // sparse: nothing of it is on the disk
  for (const std::string& place : {path, archive_part(path, 0, int64_t{day} + 44, "day.wav")}) {
    const std::string message = place + ": 86400.0 seconds are more than the limit of 600";
    EXPECT_EQ(data_error_of([&] { load_audio(place, 16000); }), message);
    const int64_t grown = peak_memory_of([&] { data_error_of([&] { load_audio(place, 16000); }); });
    EXPECT_GE(grown, 0);
    EXPECT_LT(grown, int64_t{64} << 20);
  }
}

TEST(AudioDecode, TakesStreamsOfUnknownLength) {
  const std::string second = encode_sound(tone(440, 1.0, 8000), {.rate = 8000});
  const Audio audio = decode_audio(bytes_of(announcing(second, 0xFFFFFFFF)), "stream", 0);
  EXPECT_EQ(audio.samples.size(), 8000U);
  EXPECT_EQ(data_error_of([&] {
              decode_audio(bytes_of(announcing(second, 0xFFFFFFFF)), "s", 0, {.max_seconds = 0.5});
            }),
            "s: 1.0 seconds are more than the limit of 0.5");
}

TEST(AudioDecode, NoticesThatAFileWasCutOff) {
  for (const FormatCase& c : kCases) {
    SCOPED_TRACE(c.name);
    const std::string whole = encode_sound(tone(440, 2.0, 16000), {c.code, 16000, 1});
    const std::string half = whole.substr(0, whole.size() / 2 + 7);
    EXPECT_THAT(error_of(half),
                AllOf(HasSubstr("x.wav: "), AnyOf(HasSubstr("cut off"), HasSubstr("lost sync"))));
    if (c.format == AudioFormat::kWav) {
      const Audio rest = decode_audio(bytes_of(half), "half", 16000, {.strict = false});
      EXPECT_NEAR(static_cast<double>(rest.samples.size()), 16000, 50);
    }
  }
}

TEST(AudioDecode, KnowsTheLengthOfAnMp3FileByItsFrames) {
  std::vector<float> samples = tone(440, 5.0, 16000);
  for (size_t i = 0; i < samples.size(); ++i)
    if (i % 20000 > 9000) samples[i] = 0;  // so that the bit rate varies
  for (const int rate : {8000, 16000, 44100}) {
    std::string content = encode_sound(
        samples, {.format = SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, .rate = rate, .variable = true});
    const auto claim = read_mp3_claim(bytes_of(content));
    ASSERT_TRUE(claim);
    EXPECT_EQ(claim->sample_rate, rate);
    EXPECT_EQ(claim->present_samples, claim->announced_samples);
    EXPECT_NEAR(static_cast<double>(claim->present_samples), 80000, 4000);
    EXPECT_FALSE(claim->is_cut());
    EXPECT_EQ(decode_audio(bytes_of(content), "x", 0).samples.size(), 80000U);
    const std::string cut = content.substr(0, content.size() * 2 / 3);
    EXPECT_EQ(error_of(cut), "x.wav: the file is cut off");
    EXPECT_LT(read_mp3_claim(bytes_of(cut))->present_samples, 70000);
    EXPECT_THAT(error_of(content, {.max_seconds = 1}), HasSubstr("seconds are more than the limit of 1"));
    // Without its first frame, the one that says how many there are, its end cannot be told from a longer
    // file's.
    const size_t second = content.find(content.substr(0, 2), 4);
    EXPECT_EQ(read_mp3_claim(bytes_of(content).subspan(second))->announced_samples, 0);
    EXPECT_THAT(error_of("ID3" + std::string("\4\0\0\0\0\0\x0A", 7) + std::string(10, '\0') + content),
                "accepted");
  }
}

TEST(AudioDecode, RefusesSamplesThatAreNoNumbers) {
  std::vector<float> samples = tone(440, 0.1, 16000);
  samples[37] = std::nanf("");
  EXPECT_EQ(error_of(encode_sound(samples, {SF_FORMAT_WAV | SF_FORMAT_FLOAT, 16000, 1})),
            "x.wav: sample 37 is nan, full scale is 1");
}

TEST(AudioDecode, RefusesTooManyChannelsAndOddRates) {
  EXPECT_EQ(error_of(encode_sound(std::vector<float>(400), {.channels = 4}), {.max_channels = 2}),
            "x.wav: 4 channels, expected 1 to 2");
  EXPECT_EQ(error_of(encode_sound(tone(440, 0.1, 16000)), {.max_rate = 8000}),
            "x.wav: 16000 samples a second, expected 100 to 8000");
}

TEST(AudioDecode, SurvivesDamage) {
  for (const FormatCase& c : kCases) {
    const std::string whole = encode_sound(tone(440, 0.2, 16000), {c.code, 16000, 1});
    Random random({11});
    for (int trial = 0; trial < 60; ++trial) {
      std::string damaged =
          whole.substr(0, 1 + static_cast<size_t>(random.below(static_cast<int64_t>(whole.size()))));
      for (int i = 0; i < 3; ++i)
        damaged[static_cast<size_t>(random.below(static_cast<int64_t>(damaged.size())))] =
            static_cast<char>(random.below(256));
      data_error_of([&] { decode_audio(bytes_of(damaged), c.name, 16000, {.strict = trial % 2 == 0}); });
    }
  }
}

TEST(AudioResample, DoesNotDependOnHowTheStreamIsCut) {
  const std::vector<float> samples = tone(1000, 0.5, 44100);
  const std::vector<float> whole = resample(samples, 44100, 16000);
  EXPECT_NEAR(static_cast<double>(whole.size()), 8000, 1);
  EXPECT_GT(share_at(whole, 1000, 16000), 0.999);
  Resampler resampler(44100, 16000);
  std::vector<float> pieces;
  for (size_t at = 0; at < samples.size(); at += 777)
    resampler.feed(std::span(samples).subspan(at, std::min<size_t>(777, samples.size() - at)), pieces);
  resampler.finish(pieces);
  EXPECT_EQ(pieces, whole);
}

TEST(AudioResample, LetsNothingFoldOver) {
  std::vector<float> high = tone(12000, 0.5, 48000);  // above half of 16 kHz
  double energy = 0;
  for (const float sample : resample(high, 48000, 16000)) energy += static_cast<double>(sample) * sample;
  EXPECT_LT(energy, 1.0) << "of 1500 before";
  EXPECT_EQ(resample(high, 48000, 48000), high);
}

}  // namespace
}  // namespace fathom::audio_decode_test
