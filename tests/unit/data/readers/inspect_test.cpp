#include "data/readers/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "data/image/encode.h"
#include "temporary_folder.h"

namespace fathom::inspect_test {
namespace {

using ::testing::HasSubstr;

Image grey(int64_t height, int64_t width) {
  return {.height = height,
          .width = width,
          .pixels = std::vector<uint8_t>(static_cast<size_t>(height * width * 3), 90)};
}

TEST(InspectDataset, CountsAndFindsEveryProblem) {
  TemporaryFolder folder;
  const std::string whole = encode_png(grey(20, 30));
  write_file_atomically(folder / "a.png", whole);
  write_file_atomically(folder / "b.png", encode_png(grey(40, 10)));
  write_file_atomically(folder / "cut.png", whole.substr(0, whole.size() - 20));
  write_file_atomically(
      folder / "captions.jsonl",
      "{\"image\":\"a.png\",\"captions\":[\"one two\",\"one two three four\"],\"split\":\"train\"}\n"
      "{\"image\":\"b.png\",\"question\":\"how many?\",\"answer\":\"2\",\"label\":\"x\",\"split\":\"val\"}\n"
      "not json\n"
      "{\"image\":\"gone.png\",\"caption\":\"c\"}\n"
      "{\"image\":\"cut.png\",\"caption\":\"c\"}\n");
  int64_t done = 0;
  const auto summary =
      inspect_dataset({.path = folder.path()}, {}, [&](int64_t now, int64_t) { done = now; });
  EXPECT_EQ(done, 3);
  EXPECT_EQ(summary.num_records, 3);
  EXPECT_EQ(summary.splits, (std::map<std::string, int64_t>{{"train", 1}, {"val", 1}, {"", 1}}));
  EXPECT_EQ(summary.num_captions, 3);
  EXPECT_EQ(summary.num_questions, 1);
  EXPECT_EQ(summary.num_images, 3);
  EXPECT_EQ(summary.caption_words.most, 4);
  EXPECT_EQ(summary.image_height.most, 40);
  EXPECT_EQ(summary.image_width.least, 10);
  EXPECT_EQ(summary.samples.size(), 3u);
  const auto problems = summary.report->problems();
  ASSERT_EQ(problems.size(), 3u);
  EXPECT_EQ(problems[0].source, folder / "captions.jsonl:3");
  EXPECT_THAT(problems[1].reason, HasSubstr("gone.png: no such file"));
  EXPECT_EQ(problems[2].source, folder / "captions.jsonl:5");
  EXPECT_THAT(problems[2].reason, HasSubstr("cut.png"));
  EXPECT_EQ(summary.to_json().at("num_problems").as_int(), 3);
  EXPECT_THAT(summary.to_text(), HasSubstr("captions.jsonl:5: "));
}

TEST(InspectDataset, ListensToSounds) {
  TemporaryFolder folder;
  const std::string sound = read_file(FATHOM_GOLDENS "/../fuzz/seeds/fuzz_audio/plain.flac");
  write_file_atomically(folder / "a.flac", sound);
  write_file_atomically(folder / "cut.flac", sound.substr(0, sound.size() - 100));
  write_file_atomically(folder / "text.flac", "not a sound at all");
  write_file_atomically(folder / "clips.jsonl",
                        "{\"audio\":\"a.flac\"}\n{\"audio\":\"cut.flac\"}\n{\"audio\":\"text.flac\"}\n");
  const auto summary = inspect_dataset({.path = folder.path()}, {}, [](int64_t, int64_t) {});
  EXPECT_EQ(summary.num_audio, 3);
  EXPECT_EQ(summary.audio_seconds.count, 1);
  EXPECT_DOUBLE_EQ(summary.audio_seconds.most, 0.1);
  const auto problems = summary.report->problems();
  ASSERT_EQ(problems.size(), 2U);
  EXPECT_EQ(problems[0].source, folder / "clips.jsonl:2");
  EXPECT_THAT(problems[1].reason, HasSubstr("text.flac: expected a WAV, FLAC, Ogg or MP3 file"));
}

TEST(InspectDataset, SharedDataSetsAreReadWithoutProblems) {
  const char* root = std::getenv("FATHOM_DATA");
  if (!root) GTEST_SKIP() << "set FATHOM_DATA to the folder of shared data sets";
  const auto problems = [&](const std::string& name) {
    return inspect_dataset({.path = std::string(root) + "/" + name}, {.decode = false},
                           [](int64_t, int64_t) {})
        .report->count();
  };
  for (const char* name :
       {"flickr8k", "easy-vqa", "daquar", "fsdd", "esc10", "tuxpaint-stamps", "text-cls/sst2.jsonl"})
    EXPECT_EQ(problems(name), 0) << name;
  const auto flickr = open_dataset({.path = std::string(root) + "/flickr8k", .split = "val"});
  EXPECT_EQ(flickr->size(), 1000);
  EXPECT_EQ(flickr->record(999).captions.size(), 5u);
}

}  // namespace
}  // namespace fathom::inspect_test
