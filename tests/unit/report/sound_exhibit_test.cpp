#include "report/sound_exhibit.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "data/image/image.h"
#include "nn/init.h"
#include "temporary_folder.h"
#include "wav_file.h"

namespace fathom::sound_exhibit_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// The picture of a data URI, decoded.
Image picture_of(const std::string& uri, const std::string& folder) {
  const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t value = 0;
  int bits = 0;
  for (const char letter : uri.substr(uri.find(',') + 1)) {
    if (letter == '=') break;
    value = value << 6 | static_cast<uint32_t>(letters.find(letter));
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(value >> bits & 255);
  }
  write_file_atomically(folder + "/shown.png", bytes);
  return load_image(folder + "/shown.png");
}

TEST(Spectrogram, DrawsTimeToTheRightAndLowBandsBelow) {
  const TemporaryFolder folder;
  Spectrogram spectrogram{.num_bands = 3, .num_frames = 5, .values = std::vector<float>(15, -1)};
  spectrogram.values[0 * 5 + 4] = 1;  // lowest band, last frame
  const std::string uri = spectrogram_uri(spectrogram, 2);
  EXPECT_TRUE(uri.starts_with("data:image/png;base64,"));
  const Image image = picture_of(uri, folder.path());
  ASSERT_EQ(image.height, 6);
  ASSERT_EQ(image.width, 10);
  const auto brightness = [&](int64_t y, int64_t x) {
    const uint8_t* pixel = &image.pixels[static_cast<size_t>(3 * (y * image.width + x))];
    return pixel[0] + pixel[1] + pixel[2];
  };
  EXPECT_GT(brightness(5, 9), 600);
  EXPECT_GT(brightness(4, 8), 600) << "two pixels a frame and a band";
  EXPECT_LT(brightness(0, 9), 150);
  EXPECT_LT(brightness(5, 0), 150);
}

TEST(SoundExhibit, ShowsWhatAClassifierTakesAClipFor) {
  const TemporaryFolder folder;
  std::vector<Record> records;
  for (const char* label : {"hum", "buzz", "hum"}) {
    std::vector<int16_t> wave(8000, 0);
    for (size_t i = 0; i < wave.size(); ++i)
      wave[i] = static_cast<int16_t>(9000 * std::sin(0.1 * static_cast<double>(i * (records.size() + 1))));
    Record& record = records.emplace_back();
    record.audio_path = folder / fmt::format("{}.wav", records.size());
    record.label = label;
    record.source = label;
    write_file_atomically(record.audio_path, wav_file(wave, 16000));
  }
  ClassifierConfig config;
  config.encoder = EncoderKind::kAudio;
  config.classes = {"buzz", "hum"};
  config.audio = {.bands = 10, .dim = 16, .layers = 1, .heads = 2, .max_frames = 100};
  Classifier model(config);
  init_parameters(*model, 3);
  ModelInputs inputs;
  inputs.audio.bands = 10;
  inputs.audio.max_seconds = 1;
  const ClassifierData data(config,
                            std::make_shared<const Dataset>(folder.path(), DataFormat::kJsonLines, records,
                                                            std::make_shared<DataReport>()),
                            inputs, nullptr, Phase::kEvaluate, 0);
  const auto exhibits = exhibit_classified_sounds(model, data, {}, {.count = 2});
  ASSERT_EQ(exhibits.size(), 2u);
  HtmlWriter page;
  write_sounds(page, exhibits);
  const std::string html = page.finish();
  for (const SoundExhibit& exhibit : exhibits) {
    EXPECT_NEAR(exhibit.seconds, 0.5, 1e-9);
    EXPECT_TRUE(exhibit.guess == "hum" || exhibit.guess == "buzz");
    EXPECT_GE(exhibit.probability, 0.5);
    EXPECT_THAT(html, HasSubstr(exhibit.spectrogram));
    EXPECT_THAT(html, HasSubstr(exhibit.guess == exhibit.name ? "right, " : "taken for " + exhibit.guess));
  }
  HtmlWriter empty;
  write_sounds(empty, {});
  EXPECT_THAT(empty.finish(), Not(HasSubstr("Sounds")));
}

}  // namespace
}  // namespace fathom::sound_exhibit_test
