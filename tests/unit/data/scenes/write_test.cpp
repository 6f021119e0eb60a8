#include "data/scenes/write.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "data/image/image.h"
#include "data/readers/dataset.h"
#include "data/scenes/render.h"
#include "temporary_folder.h"

namespace fathom::scenes::write_test {
namespace {

const WorldConfig kSmall{.train = 70, .val = 6, .seed = 2, .size = 48};

bool write(const WorldConfig& config, const std::string& folder) {
  return write_world(config, folder, [](int64_t) {});
}

TEST(WriteWorld, ReadersOpenWhatItWrites) {
  TemporaryFolder folder;
  int64_t told = 0;
  EXPECT_TRUE(write_world(kSmall, folder.path(), [&](int64_t done) { told = done; }));
  EXPECT_EQ(told, 76);
  const auto val = open_dataset({.path = folder.path(), .split = "val"});
  ASSERT_EQ(val->size(), 6);
  EXPECT_EQ(val->record(1).tags.at("unseen"), "true");
  EXPECT_EQ(val->record(2).tags.at("unseen"), "false");
  EXPECT_EQ(val->record(0).captions.size(), 5u);
  EXPECT_EQ(load_image(val->record(3).image_path).pixels, render(make_scene(Split::kVal, 2, 3), 48).pixels);
  const auto questions = open_dataset({.path = folder / "questions.jsonl", .split = "train"});
  EXPECT_GT(questions->size(), 70 * 5);
  EXPECT_EQ(questions->record(0).answers.size(), 1u);
  EXPECT_EQ(read_world_marker(folder.path()).at("captions").as_int(), 76 * 5);
}

TEST(WriteWorld, FewerObjectsMakeAnotherWorld) {
  TemporaryFolder folder;
  WorldConfig config = kSmall;
  write(config, folder / "five");
  EXPECT_EQ(read_world_marker(folder / "five").find("max_objects"), nullptr) << "as worlds were before";
  config.max_objects = 1;
  EXPECT_TRUE(write(config, folder / "one"));
  EXPECT_FALSE(write(config, folder / "one")) << "recognised";
  EXPECT_THROW(write(config, folder / "five"), Error);
  EXPECT_THROW(write(kSmall, folder / "one"), Error);
  EXPECT_EQ(read_world_marker(folder / "one").at("max_objects").as_int(), 1);
  EXPECT_EQ(load_image(folder / "one/images/val-000003.png").pixels,
            render(make_scene(Split::kVal, 2, 3, 1), 48).pixels);
}

TEST(WriteWorld, SameBytesForAnyNumberOfThreads) {
  TemporaryFolder folder;
  WorldConfig config = kSmall;
  config.num_threads = 1;
  write(config, folder / "one");
  config.num_threads = 3;
  write(config, folder / "three");
  for (const char* name : {"captions.jsonl", "questions.jsonl", "images/train-000069.png"})
    EXPECT_EQ(read_file(folder / (std::string("one/") + name)),
              read_file(folder / (std::string("three/") + name)))
        << name;
}

TEST(WriteWorld, SecondRunRecognisesAFinishedWorld) {
  TemporaryFolder folder;
  EXPECT_TRUE(write(kSmall, folder.path()));
  std::filesystem::remove(folder / "images/train-000000.png");
  EXPECT_FALSE(write(kSmall, folder.path()));
  EXPECT_FALSE(std::filesystem::exists(folder / "images/train-000000.png")) << "nothing was written again";
}

TEST(WriteWorld, InterruptedRunIsWrittenAgain) {
  TemporaryFolder folder;
  try {
    write_world(kSmall, folder.path(), [](int64_t) { throw Error(ErrorKind::kInternal, "killed"); });
  } catch (const Error&) {
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "captions.jsonl"));
  EXPECT_TRUE(write(kSmall, folder.path()));
  EXPECT_EQ(open_dataset({.path = folder.path()})->size(), 76);
}

TEST(WriteWorld, OtherFoldersAreLeftAlone) {
  TemporaryFolder folder;
  const auto reason = [&](const WorldConfig& config) -> std::string {
    try {
      write(config, folder.path());
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  write_file_atomically(folder / "captions.jsonl", "mine\n");
  EXPECT_THAT(reason(kSmall), ::testing::HasSubstr("holds a captions.jsonl that is not of the scenes world"));
  std::filesystem::remove(folder / "captions.jsonl");
  EXPECT_EQ(reason(kSmall), "");
  EXPECT_THAT(reason({.train = 71, .val = 6, .seed = 2, .size = 48}),
              ::testing::HasSubstr("holds another world"));
  EXPECT_THAT(reason({.train = 0, .val = 0}), ::testing::HasSubstr("at least one scene"));
  EXPECT_THAT(reason({.size = 8}), ::testing::HasSubstr("expected 32 to 512"));
  for (const int most : {0, kMaxObjects + 1})
    EXPECT_THAT(reason({.max_objects = most}), ::testing::HasSubstr("expected 1 to 5"));
}

}  // namespace
}  // namespace fathom::scenes::write_test
