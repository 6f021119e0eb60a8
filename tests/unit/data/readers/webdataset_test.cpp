// Tar shards as data sets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "data/image/image.h"
#include "data/media_file.h"
#include "data/readers/dataset.h"
#include "data/readers/inspect.h"
#include "data/readers/shard_names.h"
#include "dataset_folder.h"
#include "tar_bytes.h"

namespace fathom::webdataset_test {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string png(uint8_t grey) {
  const Image image{.height = 2, .width = 3, .pixels = std::vector<uint8_t>(18, grey)};
  return encode_png(image);
}

class WebDataset : public testing::DatasetFolder {};

TEST_F(WebDataset, FilesOfOneBaseNameAreOneSample) {
  const std::string shard = write(
      "s.tar",
      tar_file("d.x/1.png", png(10)) + tar_file("d.x/1.txt", " a dog\n") + tar_file("d.x/1.cls", "7\n") +
          tar_file("d.x/2.JPG", "not looked at") +
          tar_file("d.x/2.json", R"({"captions": ["a", "b"], "split": "train", "image": "x", "n": 3})") +
          tar_file("README", "no sample") + tar_file("3.txt", "a text alone") + tar_end());
  const auto data = open("s.tar");
  ASSERT_EQ(data->size(), 3);
  EXPECT_EQ(data->format(), DataFormat::kWebDataset);
  const Record& first = data->record(0);
  EXPECT_EQ(first.id, "d.x/1");
  EXPECT_EQ(first.source, shard + ": d.x/1");
  EXPECT_THAT(first.captions, ElementsAre("a dog"));
  EXPECT_EQ(first.label, "7");
  EXPECT_EQ(load_image(first.image_path).pixels, std::vector<uint8_t>(18, 10));
  const Record& second = data->record(1);
  EXPECT_THAT(second.captions, ElementsAre("a", "b"));
  EXPECT_EQ(second.tags.at("n"), "3");
  EXPECT_EQ(read_media(second.image_path), "not looked at");
  EXPECT_EQ(data->record(2).text, "a text alone");
  EXPECT_EQ(open("s.tar", {.split = "train"})->size(), 1);
}

TEST_F(WebDataset, ShardsByBracesAndFolders) {
  for (const char* name : {"s-09.tar", "s-10.tar", "s-11.tar"})
    write(name, tar_file(std::string(name) + "/a.txt", name) + tar_end());
  const auto texts = [](const Dataset& data) {
    std::vector<std::string> found;
    for (const Record& record : data.records()) found.push_back(record.text);
    return found;
  };
  EXPECT_THAT(texts(*open("s-{09..10}.tar")), ElementsAre("s-09.tar", "s-10.tar"));
  EXPECT_THAT(texts(*open("")), ElementsAre("s-09.tar", "s-10.tar", "s-11.tar"));
  EXPECT_EQ(open("", {.limit = 2})->size(), 2);
  EXPECT_THAT(error_of("s-{09..12}.tar"), HasSubstr("s-12.tar: no such file"));
}

TEST_F(WebDataset, BrokenSamplesAreNamedOrCounted) {
  const std::string good = tar_file("z.txt", "good");
  const auto problems = [&](const std::string& archive) {
    write("s.tar", archive);
    std::string all = error_of("s.tar") + "\n";
    const auto data = open("s.tar", {.on_error = OnError::kSkip});
    EXPECT_EQ(data->size(), 1);
    for (const auto& problem : data->report().problems())
      all += problem.source + ": " + problem.reason + "\n";
    return all;
  };
  const std::string path = folder_ / "s.tar";
  EXPECT_EQ(problems(tar_file("a.json", "{\"caption\": }") + good + tar_end()).substr(0, path.size() + 21),
            path + ": a: a.json:1:13: not");
  EXPECT_THAT(problems(tar_file("a.txt", "caf\xe9") + good + tar_end()),
              HasSubstr(": a: a.txt: byte 4: not valid UTF-8"));
  EXPECT_THAT(problems(tar_file("a.npy", "x") + good + tar_end()),
              HasSubstr(": a: no picture, recording or text"));
  EXPECT_THAT(problems(tar_file("a.txt", "x") + tar_file("a.txt", "y") + good + tar_end()),
              HasSubstr(": a: a.txt: is there twice"));
  EXPECT_THAT(problems(tar_file("a.png", "x") + tar_file("a.jpg", "y") + good + tar_end()),
              HasSubstr("a second picture"));
  EXPECT_THAT(
      problems(good + tar_file("y.txt", "at the cut") +
               tar_file("a.txt", std::string(600, 'x')).substr(0, 900)),
      HasSubstr(path + ": byte 2048: a member of 600 bytes, but only 388 follow: is the archive cut off?"));
  EXPECT_THAT(problems(tar_header({.name = "a.png", .type = '1'}) + good + tar_end()),
              HasSubstr("a.png: a hard link"));
}

TEST_F(WebDataset, TheSampleAtTheCutIsLeftOut) {
  const std::string whole = tar_file("1.png", png(1)) + tar_file("1.txt", "a") + tar_file("2.png", png(2)) +
                            tar_file("2.txt", "b") + tar_file("3.png", png(3));
  const std::string caption = tar_file("3.txt", std::string(600, 'c'));
  const std::string damaged = std::string(512, 'x');  // no header: what follows cannot be found
  for (const std::string& rest :
       {std::string(), caption.substr(0, 300), caption.substr(0, 512 + 100), damaged + caption + tar_end()}) {
    write("s.tar", whole + rest);
    const auto data = open("s.tar", {.on_error = OnError::kSkip});
    ASSERT_EQ(data->size(), 2) << rest.size();
    EXPECT_EQ(data->record(1).id, "2");
    EXPECT_EQ(data->report().count(), 1) << "the archive";
  }
  write("s.tar", whole + tar_header({.name = "3.json", .type = '2'}) + caption + tar_end());
  EXPECT_EQ(open("s.tar", {.on_error = OnError::kSkip})->size(), 3) << "a link ends no archive";
  write("s.tar", whole + caption + tar_end());
  EXPECT_EQ(open("s.tar", {.limit = 2})->size(), 2);
}

TEST_F(WebDataset, IsInspectedLikeAnyOther) {
  write("s.tar", tar_file("1.png", png(1)) + tar_file("1.txt", "a") + tar_file("2.png", "broken") +
                     tar_file("2.txt", "b") + tar_end());
  const auto summary =
      inspect_dataset({.path = folder_ / "s.tar", .on_error = OnError::kSkip}, {}, [](int64_t, int64_t) {});
  EXPECT_EQ(summary.num_images, 2);
  EXPECT_EQ(summary.image_width.most, 3);
  ASSERT_EQ(summary.report->count(), 1);
  EXPECT_THAT(summary.report->problems()[0].reason, HasSubstr("!2.png: "));
}

TEST_F(WebDataset, MediaOutsideTheArchiveAreRefused) {
  const std::string shard = write("s.tar", tar_file("1.txt", "a") + tar_end());
  const auto error = [](const std::string& path) {
    try {
      read_media(path);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(read_media(shard + "!512+1!1.txt"), "a");
  EXPECT_THAT(error(shard + "!512+9223372036854775807!x"), HasSubstr("the archive has 2048 bytes"));
  EXPECT_THAT(error(shard + "!9223372036854775807+1!x"), HasSubstr("the archive has 2048 bytes"));
  EXPECT_THAT(error(folder_ / "gone.tar!0+1!x"), HasSubstr("cannot open"));
  EXPECT_TRUE(media_exists(shard + "!512+1!1.txt"));
  EXPECT_FALSE(media_exists(shard + "!512+1"));
  write("a!1+2.txt", "a file of its own");
  EXPECT_EQ(read_media(folder_ / "a!1+2.txt"), "a file of its own");
}

TEST(ShardNames, ExpandAsInAShell) {
  EXPECT_THAT(expand_braces("a"), ElementsAre("a"));
  EXPECT_THAT(expand_braces("a-{8..11}.tar"), ElementsAre("a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"));
  EXPECT_THAT(expand_braces("{098..101}"), ElementsAre("098", "099", "100", "101"));
  EXPECT_THAT(expand_braces("{a,b}{0..1}"), ElementsAre("a0", "a1", "b0", "b1"));
  EXPECT_THAT(expand_braces("x{,y}"), ElementsAre("x", "xy"));
  const auto error = [](const std::string& pattern) {
    try {
      expand_braces(pattern);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kConfig);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(error("a{1..2"), HasSubstr("a brace is not closed"));
  EXPECT_THAT(error("a}"), HasSubstr("that was not opened"));
  EXPECT_THAT(error("a{{1,2},3}"), HasSubstr("braces within braces"));
  EXPECT_THAT(error("a{2..1}"), HasSubstr("the range 2..1 falls"));
  EXPECT_THAT(error("a{1..x}"), HasSubstr("\"x\" is no number"));
  EXPECT_THAT(error("{0..999999999999}"), HasSubstr("over a million names"));
  EXPECT_THAT(error("{0..9999}{0..9999}"), HasSubstr("over a million names"));
}

}  // namespace
}  // namespace fathom::webdataset_test
