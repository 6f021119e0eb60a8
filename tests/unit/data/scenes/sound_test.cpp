#include "data/scenes/sound.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "data/audio/decode.h"
#include "data/audio/encode.h"
#include "data/readers/dataset.h"
#include "data/scenes/write.h"
#include "temporary_folder.h"

namespace fathom::scenes::sound_test {
namespace {

Object object(const Attributes& attributes, double x, double distance = 0.5) {
  return {.attributes = attributes, .x = x, .y = 0.5, .radius = 0.1, .distance = distance};
}

Audio sound_of(std::vector<Object> objects) {
  Scene scene;
  scene.objects = std::move(objects);
  return make_sound(scene);
}

double energy(const Audio& audio) {
  double sum = 0;
  for (const float sample : audio.samples) sum += static_cast<double>(sample) * sample;
  return sum;
}

/// Strength of a frequency over a stretch of the sound.
double strength(const Audio& audio, double hz, size_t begin, size_t end) {
  double real = 0, imaginary = 0;
  for (size_t i = begin; i < std::min(end, audio.samples.size()); ++i) {
    const double phase = 2 * M_PI * hz * static_cast<double>(i) / static_cast<double>(audio.sample_rate);
    real += audio.samples[i] * std::cos(phase);
    imaginary += audio.samples[i] * std::sin(phase);
  }
  return std::hypot(real, imaginary);
}

TEST(Sound, IsAPureFunctionOfTheScene) {
  const Scene scene = make_scene(Split::kTrain, 5, 3);
  EXPECT_EQ(make_sound(scene).samples, make_sound(make_scene(Split::kTrain, 5, 3)).samples);
  Scene other = scene;
  other.index = 4;
  EXPECT_NE(make_sound(other).samples, make_sound(scene).samples) << "tuning, phases and noise";
  for (int64_t i = 0; i < 50; ++i) {
    const Audio audio = make_sound(make_scene(Split::kVal, 1, i));
    EXPECT_EQ(audio.sample_rate, kSoundRate);
    EXPECT_LE(audio.samples.size(), static_cast<size_t>(1.8 * kSoundRate));
    EXPECT_GT(energy(audio), 1);
    EXPECT_TRUE(std::all_of(audio.samples.begin(), audio.samples.end(),
                            [](float sample) { return std::abs(sample) <= 1; }));
  }
}

TEST(Sound, EveryValueOfAnAttributeSoundsDifferent) {
  for (const Attribute attribute : kAttributes) {
    std::set<std::vector<float>> sounds;
    for (int value = 0; value < num_values(attribute); ++value) {
      Object one = object({0, 0, 0, 2}, 0.5);
      one.attributes[static_cast<size_t>(attribute)] = value;
      sounds.insert(sound_of({one}).samples);
    }
    EXPECT_EQ(static_cast<int>(sounds.size()), num_values(attribute)) << attribute_name(attribute);
  }
}

TEST(Sound, ColourIsPitchSizeIsLengthDistanceIsLoudness) {
  const Audio low = sound_of({object({0, 0, 0, 2}, 0.5)}), high = sound_of({object({0, 3, 0, 2}, 0.5)});
  const size_t whole = low.samples.size();
  EXPECT_GT(strength(low, 220, 0, whole), 3 * strength(low, 440, 0, whole));
  EXPECT_GT(strength(high, 440, 0, whole), 3 * strength(high, 220, 0, whole)) << "three steps are an octave";
  EXPECT_LT(sound_of({object({0, 0, 0, 0}, 0.5)}).samples.size(), whole);
  const double ratio =
      energy(sound_of({object({0, 0, 0, 2}, 0.5, 0)})) / energy(sound_of({object({0, 0, 0, 2}, 0.5, 1)}));
  EXPECT_NEAR(10 * std::log10(ratio), 12, 0.5);
}

TEST(Sound, GoesFromLeftToRight) {
  const Object red = object({0, 0, 0, 2}, 0.2), blue = object({0, 6, 0, 2}, 0.8);
  const Audio audio = sound_of({blue, red});
  const size_t half = audio.samples.size() / 2;
  EXPECT_GT(strength(audio, 220, 0, half), 5 * strength(audio, 220, half, 2 * half));
  EXPECT_GT(strength(audio, 880, half, 2 * half), 5 * strength(audio, 880, 0, half));
}

TEST(Sound, LiesBesideThePicturesAndChangesNothingElse) {
  const TemporaryFolder folder;
  WorldConfig config{.train = 6, .val = 3, .seed = 2, .size = 48};
  const auto nothing = [](int64_t) {};
  write_world(config, folder / "silent", nothing);
  config.sounds = true;
  write_world(config, folder / "sounding", nothing);
  EXPECT_FALSE(write_world(config, folder / "sounding", nothing)) << "recognised";
  for (const char* name : {"questions.jsonl", "images/train-000005.png", "images/val-000002.png"})
    EXPECT_EQ(read_file(folder / (std::string("silent/") + name)),
              read_file(folder / (std::string("sounding/") + name)))
        << name;
  EXPECT_EQ(read_world_marker(folder / "silent").find("sounds"), nullptr);
  EXPECT_THROW(write_world(config, folder / "silent", nothing), Error) << "another world";
  const auto rows = open_dataset({.path = folder / "sounding", .split = "val"});
  const auto plain = open_dataset({.path = folder / "silent", .split = "val"});
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(rows->record(i).captions, plain->record(i).captions);
    EXPECT_TRUE(plain->record(i).audio_path.empty());
    const Audio expected = make_sound(make_scene(Split::kVal, 2, i));
    const Audio got = load_audio(rows->record(i).audio_path, kSoundRate, {});
    ASSERT_EQ(got.samples.size(), expected.samples.size());
    for (size_t k = 0; k < got.samples.size(); ++k) ASSERT_NEAR(got.samples[k], expected.samples[k], 1e-4);
  }
}

TEST(EncodeWav, ClipsAndRounds) {
  const std::string bytes = encode_wav({.sample_rate = 8000, .samples = {0, 0.5F, -2, 3}});
  ASSERT_EQ(bytes.size(), 52u);
  const auto sample = [&](size_t i) {
    return static_cast<int16_t>(static_cast<uint8_t>(bytes[44 + 2 * i]) |
                                static_cast<uint8_t>(bytes[45 + 2 * i]) << 8);
  };
  EXPECT_EQ(sample(0), 0);
  EXPECT_EQ(sample(1), 16384);
  EXPECT_EQ(sample(2), -32767);
  EXPECT_EQ(sample(3), 32767);
}

}  // namespace
}  // namespace fathom::scenes::sound_test
