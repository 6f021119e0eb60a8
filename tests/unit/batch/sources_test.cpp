#include "batch/sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "data/image/encode.h"
#include "data/tokenizer/trainer.h"
#include "temporary_folder.h"
#include "wav_file.h"

namespace fathom::sources_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<const Tokenizer> make_tokenizer() {
  TokenizerTrainerConfig config;
  config.vocab_size = 300;
  config.special_tokens = {"<|endoftext|>", "<|pad|>", "<|mask|>"};
  const std::vector<std::string_view> texts = {
      "a red circle and a blue square, a red circle and a blue square"};
  return std::make_shared<const Tokenizer>(train_tokenizer(texts, config));
}

Image noise(int64_t height, int64_t width, uint64_t seed) {
  Image image{.height = height,
              .width = width,
              .pixels = std::vector<uint8_t>(static_cast<size_t>(height * width * 3))};
  Random random(seed);
  for (uint8_t& pixel : image.pixels) pixel = static_cast<uint8_t>(random.below(256));
  return image;
}

class SourcesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 3; ++i)
      write_file_atomically(folder_ / fmt::format("{}.png", i),
                            encode_png(noise(40, 50, static_cast<uint64_t>(i))));
    write_file_atomically(
        folder_ / "captions.jsonl",
        "{\"image\":\"0.png\",\"captions\":[\"a red circle\",\"a blue square\",\"red\"],\"label\":\"x\"}\n"
        "{\"image\":\"1.png\",\"captions\":[\"a circle\"],\"label\":\"y\"}\n"
        "{\"image\":\"2.png\",\"captions\":[\"a square and a circle\",\"blue\"],\"label\":\"x\"}\n");
    dataset_ = open_dataset({.path = folder_.path()});
  }
  std::shared_ptr<const ImageViews> views(Phase phase, int64_t cache_mb = 16) const {
    ImageViewConfig config{.size = 16, .cache_mb = cache_mb};
    config.augment.flip = 0.5;
    return std::make_shared<const ImageViews>(config, phase);
  }
  PairedSource pairs(Phase phase, double mask_probability = 0, int64_t cache_mb = 16) const {
    return PairedSource({.dataset = dataset_,
                         .images = views(phase, cache_mb),
                         .text = TextEncoding(tokenizer_, {.mask_probability = mask_probability}),
                         .seed = 1});
  }

  TemporaryFolder folder_;
  std::shared_ptr<const Tokenizer> tokenizer_ = make_tokenizer();
  std::shared_ptr<const Dataset> dataset_;
};

TEST_F(SourcesTest, TrainingPairsFollowSeedEpochAndIndexAlone) {
  const auto a = pairs(Phase::kTrain);
  const auto without_cache = pairs(Phase::kTrain, 0, 0);
  std::set<std::vector<int32_t>> captions;
  std::set<std::vector<uint8_t>> pictures;
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    const Sample sample = a.load(0, epoch);
    EXPECT_EQ(sample.images[0].pixels, a.load(0, epoch).images[0].pixels);
    EXPECT_EQ(sample.images[0].pixels, without_cache.load(0, epoch).images[0].pixels);
    EXPECT_EQ(sample.token_rows[0], without_cache.load(0, epoch).token_rows[0]);
    EXPECT_EQ(sample.images[0].height, 16);
    captions.insert(sample.token_rows[0]);
    pictures.insert(sample.images[0].pixels);
  }
  EXPECT_EQ(captions.size(), 3u);
  EXPECT_GT(pictures.size(), 15u);
}

TEST_F(SourcesTest, TrainingTakesSeveralViewsAndDifferentCaptions) {
  const PairingConfig pairing{.captions_per_image = 4, .views_per_image = 2};
  const TextEncoding encoding(tokenizer_, {});
  const PairedSource source({dataset_, views(Phase::kTrain), encoding, 1, pairing});
  const Sample sample = source.load(0, 5);
  ASSERT_EQ(sample.images.size(), 2u);
  EXPECT_NE(sample.images[0].pixels, sample.images[1].pixels);
  ASSERT_EQ(sample.token_rows.size(), 4u);
  EXPECT_EQ(std::set(sample.token_rows.begin(), sample.token_rows.end()).size(), 3u)
      << "all three, one twice";
  const PairedSource evaluated({dataset_, views(Phase::kEvaluate), encoding, 1, pairing});
  EXPECT_EQ(evaluated.load(0, 0).images.size(), 1u);
  EXPECT_EQ(evaluated.load(0, 0).token_rows.size(), 1u);
}

TEST_F(SourcesTest, ATextThatIsCutSaysByHowMuch) {
  const std::string text = "a red circle and a blue square, a red circle and a blue square";
  const auto tokens = static_cast<int64_t>(tokenizer_->encode(text).size());
  ASSERT_GT(tokens, 4);
  EXPECT_EQ(TextEncoding(tokenizer_, {.max_tokens = 4}).num_cut(text), tokens - 3) << "an end mark";
  const TextEncodingConfig both{.max_tokens = 4, .begin_token = "<|pad|>"};
  EXPECT_EQ(TextEncoding(tokenizer_, both).num_cut(text), tokens - 2);
  EXPECT_EQ(TextEncoding(tokenizer_, {.max_tokens = tokens + 1}).num_cut(text), 0);
  EXPECT_EQ(TextEncoding(tokenizer_, {.max_tokens = tokens}).num_cut(text), 1);
}

TEST_F(SourcesTest, RowsThatLackSomethingAreBrokenRows) {
  const std::string path = folder_ / "some.jsonl";
  write_file_atomically(path,
                        "{\"image\":\"0.png\",\"captions\":[\"red\"]}\n"
                        "{\"captions\":[\"a caption without a picture\"]}\n"
                        "{\"image\":\"1.png\"}\n"
                        "{\"image\":\"2.png\",\"captions\":[\"blue\"]}\n");
  const auto open = [&](OnError on_error) -> std::shared_ptr<const Dataset> {
    return open_dataset({.path = path, .on_error = on_error, .table = "data.train"});
  };
  const auto pair = [&](std::shared_ptr<const Dataset> dataset) {
    return PairedSource({.dataset = std::move(dataset),
                         .images = views(Phase::kTrain),
                         .text = TextEncoding(tokenizer_, {}),
                         .seed = 1});
  };
  const PairedSource source = pair(open(OnError::kSkip));
  ASSERT_EQ(source.size(), 2);
  EXPECT_EQ(source.load(1, 0).record.image_path, folder_ / "2.png");
  EXPECT_EQ(source.dataset()->size(), 2);
  ASSERT_EQ(source.report()->count(), 2);
  EXPECT_EQ(source.report()->problems()[0].source, path + ":2");
  EXPECT_EQ(source.report()->problems()[0].reason, "no image");
  EXPECT_EQ(source.report()->problems()[1].reason, "no caption");
  EXPECT_EQ(ImageSource(open(OnError::kSkip), views(Phase::kTrain), 1).size(), 3);
  const auto error = [](const std::function<void()>& work) -> std::string {
    try {
      work();
    } catch (const Error& thrown) {
      EXPECT_EQ(thrown.kind(), ErrorKind::kData);
      return thrown.what();
    }
    return "";
  };
  EXPECT_EQ(error([&] { pair(open(OnError::kStop)); }),
            path + ":2: no image (data.train.on_error = \"skip\" leaves such rows out)");
  write_file_atomically(path, "{\"captions\":[\"a\"]}\n");
  EXPECT_EQ(error([&] { pair(open(OnError::kSkip)); }),
            path + ": no usable rows; the first problem: " + path + ":1: no image");
}

/// Three rows, each without one of picture, captions and sound.
class SoundPairs : public SourcesTest {
 protected:
  void SetUp() override {
    SourcesTest::SetUp();
    std::vector<int16_t> wave(3200);
    for (size_t i = 0; i < wave.size(); ++i) wave[i] = static_cast<int16_t>(i % 40 < 20 ? 9000 : -9000);
    write_file_atomically(folder_ / "a.wav", wav_file(wave, 16000));
  }
  std::shared_ptr<const Dataset> rows(const std::string& lines) {
    write_file_atomically(folder_ / "sounds.jsonl", lines);
    return open_dataset({.path = folder_ / "sounds.jsonl"});
  }
  PairedSource source(const std::string& lines, bool audio_tower = true) {
    const auto clips = std::make_shared<const AudioViews>(AudioViewConfig{.bands = 10}, Phase::kTrain);
    return PairedSource({.dataset = rows(lines),
                         .images = views(Phase::kTrain),
                         .text = TextEncoding(tokenizer_, {}),
                         .seed = 1,
                         .clips = audio_tower ? clips : nullptr});
  }
};

TEST_F(SoundPairs, AnyOneOfThreeMayBeMissing) {
  const auto pairs = source(
      "{\"audio\":\"a.wav\",\"captions\":[\"a buzz\"]}\n"
      "{\"audio\":\"a.wav\",\"image\":\"0.png\"}\n"
      "{\"image\":\"0.png\",\"captions\":[\"red\"]}\n"
      "{\"audio\":\"a.wav\",\"image\":\"1.png\",\"captions\":[\"blue\"]}\n");
  const bool expected[4][3] = {
      {false, true, true}, {true, false, true}, {true, true, false}, {true, true, true}};
  for (int64_t i = 0; i < 4; ++i) {
    const Sample sample = pairs.load(i, 0);
    EXPECT_EQ(!sample.images.empty(), expected[i][0]);
    EXPECT_EQ(!sample.token_rows.empty(), expected[i][1]);
    EXPECT_EQ(sample.spectrogram.has_value(), expected[i][2]);
  }
  EXPECT_EQ(pairs.load(3, 0).spectrogram->num_bands, 10);
  ASSERT_NE(pairs.first_incomplete(), nullptr);
  EXPECT_EQ(source("{\"audio\":\"a.wav\",\"image\":\"1.png\",\"captions\":[\"blue\"]}\n").first_incomplete(),
            nullptr);
}

TEST_F(SoundPairs, NamesRowsThatSayTooLittle) {
  const auto reason = [&](const std::string& lines, bool audio_tower) -> std::string {
    try {
      source(lines, audio_tower);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const std::string good = "{\"audio\":\"a.wav\",\"captions\":[\"a buzz\"]}\n";
  EXPECT_THAT(reason(good + "{\"audio\":\"a.wav\"}\n", true),
              HasSubstr("sounds.jsonl:2: expected two at least"));
  EXPECT_THAT(reason(good, false), HasSubstr("sounds.jsonl:1: no image"));
  EXPECT_THAT(reason(good + "{\"audio\":\"gone.wav\",\"captions\":[\"x\"]}\n", true), HasSubstr("gone.wav"));
}

TEST_F(SoundPairs, AClipWithoutLengthIsNamed) {
  write_file_atomically(folder_ / "empty.wav", wav_file({}, 16000));
  const auto pairs = source("{\"audio\":\"empty.wav\",\"captions\":[\"nothing\"]}\n");
  try {
    pairs.load(0, 0);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_THAT(std::string(error.what()), HasSubstr("empty.wav"));
  }
}

TEST_F(SourcesTest, EvaluationTakesTheFirstCaptionAndTheCentre) {
  const auto source = pairs(Phase::kEvaluate, 0.5);
  EXPECT_EQ(source.load(0, 0).images[0].pixels, source.load(0, 7).images[0].pixels);
  auto tokens = source.load(0, 3).token_rows[0];
  EXPECT_EQ(tokens.back(), *tokenizer_->end_of_text());
  tokens.pop_back();
  EXPECT_EQ(tokenizer_->decode(tokens), "a red circle");
}

TEST_F(SourcesTest, CacheKeepsWhatFits) {
  const auto kept = views(Phase::kEvaluate);
  const auto none = views(Phase::kEvaluate, 0);
  for (const auto& view : {kept, none}) {
    Random random(1);
    (void)view->view(folder_ / "0.png", random);
    (void)view->view(folder_ / "0.png", random);
  }
  EXPECT_EQ(kept->cached_bytes(), 40 * 50 * 3);
  EXPECT_EQ(none->cached_bytes(), 0);
}

TEST_F(SourcesTest, BrokenImageNamesItself) {
  write_file_atomically(folder_ / "1.png", "not a picture");
  try {
    (void)pairs(Phase::kTrain).load(1, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_THAT(error.what(), HasSubstr("1.png"));
  }
}

TEST_F(SourcesTest, MaskingReplacesSomeTokensButNeverAllOrTheEnd) {
  const TextEncoding text(tokenizer_, {.mask_probability = 0.5});
  const auto whole = text.encode("a red circle and a blue square");
  const int32_t mask = *tokenizer_->token_id("<|mask|>");
  int64_t num_masked = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    auto tokens = whole;
    Random random(seed);
    text.mask(tokens, random);
    EXPECT_EQ(tokens.back(), whole.back());
    const auto masked = std::count(tokens.begin(), tokens.end(), mask);
    EXPECT_LT(masked, static_cast<int64_t>(whole.size()) - 1);
    num_masked += masked;
  }
  EXPECT_NEAR(static_cast<double>(num_masked) / (200.0 * static_cast<double>(whole.size() - 1)), 0.5, 0.1);
  auto short_one = std::vector<int32_t>{5, whole.back()};
  Random random(1);
  text.mask(short_one, random);
  EXPECT_EQ(short_one[0], 5);
}

TEST_F(SourcesTest, EncodingCutsButKeepsItsMarks) {
  const TextEncoding text(tokenizer_, {.max_tokens = 4, .begin_token = "<|pad|>"});
  const auto tokens = text.encode("a very long sentence about a red circle");
  ASSERT_EQ(tokens.size(), 4u);
  EXPECT_EQ(tokens.front(), *tokenizer_->padding());
  EXPECT_EQ(tokens.back(), *tokenizer_->end_of_text());
  EXPECT_EQ(text.padding_id(), *tokenizer_->padding());
  EXPECT_THROW(TextEncoding(tokenizer_, {.end_token = "</s>"}), Error);
  EXPECT_THROW(TextEncoding(tokenizer_, {.mask_token = "[M]", .mask_probability = 0.1}), Error);
}

TEST_F(SourcesTest, SentencesAndImagesForEvaluation) {
  const TextSource sentences(dataset_, TextEncoding(tokenizer_, {}), {"x", "y"});
  ASSERT_EQ(sentences.size(), 6);
  EXPECT_EQ(sentences.record_of(3), 1);
  EXPECT_EQ(sentences.sentence(5), "blue");
  EXPECT_EQ(sentences.load(3, 0).labels.at(0), 1);
  const ImageSource images(dataset_, views(Phase::kEvaluate), 0, dataset_->class_names());
  EXPECT_EQ(images.load(2, 0).labels.at(0), 0);
  EXPECT_TRUE(images.load(2, 0).images.size() == 1);
  EXPECT_THROW((void)ImageSource(dataset_, views(Phase::kEvaluate), 0, {"y"}).load(0, 0), Error);
}

TEST_F(SourcesTest, RecordsThatSayNothingGiveNoSentence) {
  write_file_atomically(
      folder_ / "captions.jsonl",
      "{\"image\":\"0.png\"}\n{\"text\":\"a text\"}\n{\"image\":\"1.png\",\"caption\":\"a\"}\n");
  const TextSource sentences(open_dataset({.path = folder_.path()}), TextEncoding(tokenizer_, {}));
  ASSERT_EQ(sentences.size(), 2);
  EXPECT_EQ(sentences.sentence(0), "a text");
  EXPECT_EQ(sentences.record_of(1), 2);
}

TEST(ImageViewConfig, TakesTheSize0ThatStandsForTheModels) {
  EXPECT_EQ(read_config<ImageViewConfig>(parse_toml("size = 0", "recipe")).size, 0);
  EXPECT_THROW(read_config<ImageViewConfig>(parse_toml("size = -1", "recipe")), Error);
}

class TokenWindowTest : public ::testing::Test {
 protected:
  TokenFile file(const std::string& name, int64_t words) {
    std::string text;
    for (int64_t i = 0; i < words; ++i) text += fmt::format("{} ", i * 7919 % 1000);
    write_file_atomically(folder_ / name, text);
    return TokenFile::open(folder_ / name, *tokenizer_, folder_ / "cache");
  }
  std::vector<TokenFile> files(std::initializer_list<int64_t> words) {
    std::vector<TokenFile> list;
    for (const int64_t count : words) list.push_back(file(fmt::format("{}.txt", count), count));
    return list;
  }

  TemporaryFolder folder_;
  std::shared_ptr<const Tokenizer> tokenizer_ = make_tokenizer();
};

TEST_F(TokenWindowTest, EvaluationWindowsTargetEveryTokenOnce) {
  const auto all = file("100.txt", 100);
  const int32_t end = *tokenizer_->end_of_text();
  const TokenWindowSource source(files({100}), 16, Phase::kEvaluate, 0, end);
  std::vector<int32_t> targets;
  int32_t before = end;
  for (int64_t i = 0; i < source.size(); ++i) {
    const auto tokens = source.load(i, 0).token_rows[0];
    EXPECT_EQ(tokens.front(), before);
    EXPECT_LE(tokens.size(), 17u);
    targets.insert(targets.end(), tokens.begin() + 1, tokens.end());
    before = targets.back();
  }
  EXPECT_EQ(targets, std::vector<int32_t>(all.tokens().begin(), all.tokens().end()));
  EXPECT_EQ(source.text_bytes(), static_cast<int64_t>(read_file(folder_ / "100.txt").size()));
}

TEST_F(TokenWindowTest, TrainingWindowsAreWholeAndMoveEachEpoch) {
  const TokenWindowSource source(files({100, 60}), 8, Phase::kTrain, 3);
  std::set<std::vector<int32_t>> first_windows;
  for (int64_t epoch = 0; epoch < 12; ++epoch) {
    for (int64_t i = 0; i < source.size(); ++i) EXPECT_EQ(source.load(i, epoch).token_rows[0].size(), 9u);
    EXPECT_EQ(source.load(0, epoch).token_rows[0].back(), source.load(1, epoch).token_rows[0].front())
        << "windows follow each other";
    EXPECT_EQ(source.load(2, epoch).token_rows[0], source.load(2, epoch).token_rows[0]);
    first_windows.insert(source.load(0, epoch).token_rows[0]);
  }
  EXPECT_GT(first_windows.size(), 4u);
}

TEST_F(TokenWindowTest, TextsThatAreTooShortAreNamed) {
  try {
    TokenWindowSource(files({2}), 64, Phase::kTrain, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("2.txt"));
  }
}

TEST_F(SourcesTest, TrainingMasksWordsOfCaptions) {
  const int32_t mask = *tokenizer_->token_id("<|mask|>");
  const auto masked = [&](Phase phase, double probability) {
    const PairedSource source = pairs(phase, probability);
    int64_t count = 0;
    for (int64_t epoch = 0; epoch < 20; ++epoch) {
      const std::vector<int32_t> row = source.load(0, epoch).token_rows[0];
      count += std::count(row.begin(), row.end(), mask);
    }
    return count;
  };
  EXPECT_GT(masked(Phase::kTrain, 0.5), 0);
  EXPECT_EQ(masked(Phase::kTrain, 0), 0);
  EXPECT_EQ(masked(Phase::kEvaluate, 0.5), 0);
}

}  // namespace
}  // namespace fathom::sources_test
