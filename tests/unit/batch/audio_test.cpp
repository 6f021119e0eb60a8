// Clips in batches: views by (seed, epoch, index) alone, cached or not, padded with zeros.
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "batch/collate.h"
#include "batch/loader.h"
#include "batch/sources.h"
#include "temporary_folder.h"
#include "wav_file.h"

namespace fathom::audio_test {
namespace {

using ::testing::HasSubstr;

/// Noise.
std::string wav(size_t num_samples, uint32_t rate, uint64_t seed) {
  std::vector<int16_t> samples(num_samples);
  Random random({seed});
  for (int16_t& sample : samples) sample = static_cast<int16_t>(random.below(8192) - 4096);
  return wav_file(samples, rate);
}

class AudioTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_file_atomically(folder_ / "a.wav", wav(16000, 16000, 1));
    write_file_atomically(folder_ / "b.wav", wav(4000, 8000, 2));
    write_file_atomically(folder_ / "c.wav", wav(32000, 16000, 3));
    write_file_atomically(folder_ / "clips.jsonl",
                          "{\"audio\":\"a.wav\",\"label\":3}\n{\"audio\":\"b.wav\",\"label\":11}\n"
                          "{\"audio\":\"c.wav\",\"label\":3}\n");
    dataset_ = open_dataset({.path = folder_.path()});
  }
  static AudioViewConfig config() {
    return {.bands = 20,
            .max_seconds = 1.5,
            .augment = {.gain_db = 6, .shift_seconds = 0.1, .speed = 0.1, .time_masks = 1, .band_masks = 1},
            .cache_mb = 16};
  }
  AudioSource source(Phase phase, const AudioViewConfig& views) const {
    return {dataset_, std::make_shared<const AudioViews>(views, phase), 1, dataset_->class_names()};
  }

  TemporaryFolder folder_;
  std::shared_ptr<const Dataset> dataset_;
};

TEST_F(AudioTest, TrainingFollowsSeedEpochAndIndexAlone) {
  AudioViewConfig uncached = config();
  uncached.cache_mb = 0;
  const auto a = source(Phase::kTrain, config()), b = source(Phase::kTrain, uncached);
  std::set<std::vector<float>> seen;
  for (int64_t epoch = 0; epoch < 8; ++epoch) {
    const Sample sample = a.load(2, epoch);
    EXPECT_EQ(sample.spectrogram->values, a.load(2, epoch).spectrogram->values);
    EXPECT_EQ(sample.spectrogram->values, b.load(2, epoch).spectrogram->values);
    EXPECT_LE(sample.spectrogram->num_frames, 150);
    EXPECT_EQ(sample.labels.at(0), 0);
    seen.insert(sample.spectrogram->values);
  }
  EXPECT_EQ(seen.size(), 8U);
}

TEST_F(AudioTest, EachChangeIsASwitch) {
  const auto view = [&](const AudioAugmentConfig& augment) {
    AudioViewConfig views = config();
    views.augment = augment;
    return source(Phase::kTrain, views).load(0, 0).spectrogram->values;
  };
  const auto plain = view({});
  EXPECT_NE(view({.gain_db = 6}), plain);
  EXPECT_NE(view({.shift_seconds = 0.2}), plain);
  EXPECT_NE(view({.speed = 0.2}), plain);
  EXPECT_NE(view({.time_masks = 2}), plain);
  EXPECT_NE(view({.band_masks = 2}), plain);
}

TEST_F(AudioTest, EvaluationTakesTheMiddleUnchanged) {
  const auto clips = source(Phase::kEvaluate, config());
  EXPECT_EQ(clips.load(0, 0).spectrogram->values, clips.load(0, 5).spectrogram->values);
  EXPECT_EQ(clips.load(0, 0).spectrogram->num_frames, 100);
  EXPECT_EQ(clips.load(1, 0).spectrogram->num_frames, 50) << "half a second at 8 kHz";
  EXPECT_EQ(clips.load(2, 0).spectrogram->num_frames, 150) << "cropped";
  AudioViewConfig padded = config();
  padded.pad = true;
  for (int64_t i = 0; i < 3; ++i)
    EXPECT_EQ(source(Phase::kEvaluate, padded).load(i, 0).spectrogram->num_frames, 150);
}

TEST_F(AudioTest, CacheKeepsWhatFits) {
  const AudioViews kept(config(), Phase::kEvaluate);
  (void)kept.view(folder_ / "a.wav", 0);
  (void)kept.view(folder_ / "a.wav", 0);
  EXPECT_EQ(kept.cached_bytes(), 16000 * 4);
}

TEST_F(AudioTest, BatchesHoldFramesAndZerosBehindThem) {
  LoaderSetup setup =
      one_pass(std::make_shared<const AudioSource>(source(Phase::kEvaluate, config())), 3, /*workers=*/2);
  Loader loader(std::move(setup));
  const Batch batch = *loader.next();
  EXPECT_EQ(batch.mel_BFS.sizes(), at::IntArrayRef({3, 20, 150}));
  EXPECT_TRUE(batch.frames_B.equal(at::tensor({100, 50, 150}, at::kLong)));
  EXPECT_TRUE(batch.label_B.equal(at::tensor({0, 1, 0}, at::kLong)));
  EXPECT_EQ(batch.mel_BFS[1].slice(1, 50).abs().max().item<float>(), 0.0F);
  const auto clip = *source(Phase::kEvaluate, config()).load(1, 0).spectrogram;
  EXPECT_EQ(batch.mel_BFS[1][7][33].item<float>(), clip.values[7 * 50 + 33]);
  const Batch part = slice_batch(batch, 1, 2);
  EXPECT_TRUE(part.mel_BFS.equal(batch.mel_BFS.slice(0, 1)));
  EXPECT_TRUE(part.frames_B.equal(batch.frames_B.slice(0, 1)));
}

TEST_F(AudioTest, PadsToWhatIsAsked) {
  const Sample sample = source(Phase::kEvaluate, config()).load(1, 0);
  EXPECT_EQ(collate({&sample, 1}, {.pad_frames_to = 60}).mel_BFS.size(2), 60);
  EXPECT_THROW(collate({&sample, 1}, {.pad_frames_to = 49}), Error);
}

TEST_F(AudioTest, BrokenClipsNameThemselves) {
  write_file_atomically(folder_ / "b.wav", wav(4000, 8000, 2).substr(0, 1000));
  try {
    (void)source(Phase::kTrain, config()).load(1, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_THAT(
        error.what(),
        ::testing::AllOf(HasSubstr("b.wav: the file is cut off: 8000 bytes of sound announced, 956 there"),
                         HasSubstr("clips.jsonl:2")));
  }
  AudioViewConfig strict = config();
  strict.limit_seconds = 1.5;
  EXPECT_THROW(source(Phase::kTrain, strict).load(2, 0), Error);
}

}  // namespace
}  // namespace fathom::audio_test
