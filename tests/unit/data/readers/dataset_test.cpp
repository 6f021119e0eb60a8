#include "data/readers/dataset.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "dataset_folder.h"

namespace fathom::dataset_test {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class DatasetTest : public testing::DatasetFolder {};

TEST_F(DatasetTest, JsonLinesFieldsAndTags) {
  write("images/a.png");
  write("audio/a.wav");
  write(
      "captions.jsonl",
      R"({"image": "images/a.png", "audio": "audio/a.wav", "captions": ["one", "two"], "question": "how many?",)"
      R"( "answer": 2, "label": 7, "text": "t", "split": "train", "fold": 3, "unseen": false, "by": {"de": "x"}})"
      "\n");
  const auto data = open("");
  ASSERT_EQ(data->size(), 1);
  EXPECT_EQ(data->format(), DataFormat::kJsonLines);
  const Record& record = data->record(0);
  EXPECT_EQ(record.image_path, folder_ / "images/a.png");
  EXPECT_EQ(record.audio_path, folder_ / "audio/a.wav");
  EXPECT_EQ(record.id, "images/a.png");
  EXPECT_THAT(record.captions, ElementsAre("one", "two"));
  EXPECT_THAT(record.answers, ElementsAre("2"));
  EXPECT_EQ(record.question, "how many?");
  EXPECT_EQ(record.label, "7");
  EXPECT_EQ(record.text, "t");
  EXPECT_EQ(record.source, folder_ / "captions.jsonl:1");
  EXPECT_EQ(record.tags,
            (std::map<std::string, std::string>{
                {"by", R"({"de":"x"})"}, {"fold", "3"}, {"split", "train"}, {"unseen", "false"}}));
}

TEST_F(DatasetTest, SplitAndLimitChooseRows) {
  write("t.jsonl",
        "{\"text\":\"a\",\"split\":\"train\"}\n{\"text\":\"b\",\"split\":\"val\"}\n"
        "{\"text\":\"c\",\"split\":\"train\"}\n{\"text\":\"d\"}\n");
  EXPECT_EQ(open("t.jsonl")->size(), 4);
  EXPECT_EQ(open("t.jsonl", {.split = "train"})->size(), 2);
  EXPECT_EQ(open("t.jsonl", {.split = "train", .limit = 1})->record(0).text, "a");
  EXPECT_EQ(open("t.jsonl", {.split = "train", .limit = 1})->size(), 1);
  EXPECT_EQ(open("t.jsonl", {.split = "val,train"})->size(), 3) << "rows without a split stay out";
  EXPECT_EQ(open("t.jsonl", {.split = "test,val"})->record(0).text, "b");
  EXPECT_EQ(open("t.jsonl", {.split = "train,"})->size(), 2);
  EXPECT_THAT(error_of("t.jsonl", {.split = "tra"}), HasSubstr("no usable rows"));
  EXPECT_THAT(error_of("t.jsonl", {.split = "test"}),
              HasSubstr("no usable rows of split \"test\"; there are 1 rows without a split, \"train\" (2 "
                        "rows), \"val\" (1 rows)"));
}

TEST_F(DatasetTest, BrokenLineStopsWithItsPlaceOrIsCounted) {
  const std::string path =
      write("t.jsonl", "\xEF\xBB\xBF{\"text\":\"a\"}\r\n\r\n{\"text\":}\n{\"text\":\"ok\"}\n{\"text\":\"b");
  EXPECT_THAT(error_of("t.jsonl"), StartsWith(path + ":3: column 9: not valid JSON"));
  const auto data = open("t.jsonl", {.on_error = OnError::kSkip});
  EXPECT_EQ(data->size(), 2);
  EXPECT_EQ(data->report().count(), 2);
  const auto problems = data->report().problems();
  EXPECT_EQ(problems[0].source, path + ":3");
  EXPECT_EQ(problems[1].source, path + ":5");
  EXPECT_THAT(problems[1].reason, HasSubstr("is the file cut off?"));
}

TEST_F(DatasetTest, AStrictStopNamesTheSwitchOfItsRecipe) {
  write("t.jsonl", "[1]\n{\"text\":\"ok\"}\n");
  EXPECT_THAT(error_of("t.jsonl", {.table = "data.val"}),
              EndsWith(" got array (data.val.on_error = \"skip\" leaves such rows out)"));
  EXPECT_THAT(error_of("t.jsonl"), EndsWith(" got array")) << "where there is no recipe";
}

TEST_F(DatasetTest, BrokenRowsSayWhatIsWrong) {
  const auto reason = [&](const std::string& line) {
    write("t.jsonl", line + "\n");
    return error_of("t.jsonl");
  };
  EXPECT_THAT(reason("[1]"), HasSubstr(":1: expected an object, got array"));
  EXPECT_THAT(reason(R"({"captions": [["x"]]})"), HasSubstr("\"captions\": expected a string, got array"));
  EXPECT_THAT(reason(R"({"image": 3})"), HasSubstr("\"image\": expected a string, got integer"));
  EXPECT_THAT(reason(R"({"path": "x"})"),
              HasSubstr("none of the keys image, audio, text, captions, question"));
  EXPECT_THAT(reason("{\"text\": \"caf\xC3\"}"), HasSubstr(":1: byte 14: not valid UTF-8"));
  EXPECT_THAT(reason(R"({"image": "gone.png"})"), HasSubstr("gone.png: no such file"));
  EXPECT_THAT(reason(std::string(100'000, '[')), HasSubstr("t.jsonl:1: JSON nested deeper than 200 levels"));
}

TEST_F(DatasetTest, CommaSeparatedRowsOfOneImageAreOneRecord) {
  write("a.jpg");
  write("b.jpg");
  write("captions.csv",
        "filepath,title\na.jpg,first\na.jpg,\"second, with a comma\"\nb.jpg,third\na.jpg,fourth\n");
  const auto data = open("", {.columns = {"filepath=image", "title=caption"}});
  ASSERT_EQ(data->size(), 3);
  EXPECT_EQ(data->format(), DataFormat::kCsv);
  EXPECT_THAT(data->record(0).captions, ElementsAre("first", "second, with a comma"));
  EXPECT_THAT(data->record(2).captions, ElementsAre("fourth"));
}

TEST_F(DatasetTest, QuestionsAboutOneImageStayApart) {
  write("a.jpg");
  write("qa.tsv", "image\tquestion\tanswer\na.jpg\tq1\tyes\na.jpg\tq2\tno\n");
  EXPECT_EQ(open("qa.tsv")->size(), 2);
}

TEST_F(DatasetTest, RowWithTooFewFieldsNamesItsLine) {
  const std::string path = write("t.csv", "text,label\n\"a\nb\",x\nc\n");
  EXPECT_EQ(error_of("t.csv"), path + ":4: 1 fields, the header has 2");
  EXPECT_EQ(open("t.csv", {.on_error = OnError::kSkip})->size(), 1);
}

TEST_F(DatasetTest, ColumnsThatNobodyKnowsAreListed) {
  const std::string path = write("t.csv", "file,words\na.png,red\n");
  EXPECT_EQ(error_of("t.csv"),
            path +
                ":1: none of the columns is image, audio, text, caption or question; there "
                "are \"file\", \"words\" (data.columns renames them)");
  EXPECT_EQ(open("t.csv", {.columns = {"words=text"}})->record(0).text, "red");
  write("t.csv", std::string(100'000, 'w') + "\nx\n");
  EXPECT_LT(error_of("t.csv").size(), 500u) << "long names are cut";
}

TEST_F(DatasetTest, ImagesWithSideCarCaptions) {
  write("x/b.PNG");
  write("x/b.txt", "a cat\r\n\r\nanother line\n");
  write("a.jpeg");
  write("a.txt", "a dog");
  const auto data = open("");
  EXPECT_EQ(data->format(), DataFormat::kImageCaptions);
  ASSERT_EQ(data->size(), 2);
  EXPECT_EQ(data->record(0).id, "a.jpeg");
  EXPECT_THAT(data->record(1).captions, ElementsAre("a cat", "another line"));
  write("c.webp");
  EXPECT_THAT(error_of(""), HasSubstr("c.webp: no captions: "));
}

TEST_F(DatasetTest, FoldersAreClassesAndSplits) {
  write("train/cat/1.jpg");
  write("train/dog/1.jpg");
  write("train/dog/2.jpg");
  write("val/cat/3.jpg");
  const auto train = open("", {.format = DataFormat::kImageClasses, .split = "train"});
  ASSERT_EQ(train->size(), 3);
  EXPECT_EQ(train->record(0).label, "cat");
  EXPECT_EQ(train->record(2).id, "train/dog/2.jpg");
  EXPECT_EQ(train->record(0).tags.at("split"), "train");
  EXPECT_THAT(train->class_names(), ElementsAre("cat", "dog"));
  EXPECT_EQ(open("val")->format(), DataFormat::kImageClasses);
}

TEST_F(DatasetTest, ASplitIfNamedTakesDataWithoutSplitsWhole) {
  const DatasetConfig val{.split = "val", .split_if_named = true};
  write("plain.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n");
  EXPECT_EQ(open("plain.jsonl", val)->size(), 2);
  EXPECT_THAT(error_of("plain.jsonl", {.split = "val"}), HasSubstr("no usable rows of split \"val\""));
  write("named.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\",\"split\":\"val\"}\n");
  EXPECT_EQ(open("named.jsonl", val)->size(), 1);
  write("other.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\",\"split\":\"train\"}\n");
  EXPECT_THAT(error_of("other.jsonl", val), HasSubstr("\"train\" (1 rows)"));
  write("pictures/a.png");
  EXPECT_EQ(open("pictures", val)->size(), 1);
  write("classes/train/cat/a.png");
  write("classes/test/cat/b.png");
  EXPECT_THAT(error_of("classes", val), HasSubstr("no usable rows of split \"val\""))
      << "subfolders of these names are splits, not classes";
}

TEST_F(DatasetTest, ClassNamesSortNumbersByValue) {
  write("t.csv", "text,label\na,10\nb,9\nc,x\nd,9\n");
  EXPECT_THAT(open("t.csv")->class_names(), ElementsAre("9", "10", "x"));
}

TEST_F(DatasetTest, TextDocuments) {
  write("t.txt", "first\nline two\n<|endoftext|>\r\n\n<|endoftext|>\nsecond <|endoftext|> inside\n");
  const auto data = open("t.txt");
  ASSERT_EQ(data->size(), 2);
  EXPECT_EQ(data->record(0).text, "first\nline two\n");
  EXPECT_EQ(data->record(1).text, "second <|endoftext|> inside\n");
  EXPECT_EQ(data->record(1).id, "t.txt:6");
}

TEST_F(DatasetTest, PathsThatHoldNothingReadable) {
  EXPECT_THAT(error_of("gone"), HasSubstr("no such file or folder"));
  EXPECT_THAT(error_of(""), HasSubstr("no manifest (captions.jsonl"));
  write("model.bin");
  EXPECT_THAT(error_of("model.bin"),
              HasSubstr("expected a folder or a .jsonl, .json, .csv, .tsv, .tar or .txt file"));
  write("a.jsonl", "{\"text\":\"x\"}\n");
  write("b.jsonl", "{\"text\":\"x\"}\n");
  EXPECT_THAT(error_of(""), HasSubstr("several manifests (a.jsonl and b.jsonl)"));
  write("empty.jsonl");
  EXPECT_THAT(error_of("empty.jsonl"), HasSubstr("no usable rows"));
}

TEST_F(DatasetTest, FoldsAreEqualPartsThatKeepAPictureTogether) {
  std::string rows;
  for (int i = 0; i < 500; ++i) {
    write(fmt::format("{}.png", i));
    for (const char* split : {"train", "val"})
      rows += fmt::format(R"({{"image":"{0}.png","question":"what?","answer":"{0}","split":"{1}"}})"
                          "\n",
                          i, split);
  }
  write("qa.jsonl", rows);
  std::map<std::string, int> fold_of_picture;
  for (int fold = 0; fold < 5; ++fold) {
    const auto part = open("", {.split = fmt::format("{} of 5", fold)});
    EXPECT_NEAR(static_cast<double>(part->size()), 200, 40) << fold;
    for (const Record& record : part->records()) {
      const auto [place, is_new] = fold_of_picture.try_emplace(record.id, fold);
      EXPECT_EQ(place->second, fold) << record.id;
      EXPECT_EQ(record.tags.count("split"), 1);
    }
  }
  EXPECT_EQ(fold_of_picture.size(), 500);
  EXPECT_EQ(open("", {.split = "0,1,3,4 of 5"})->size() + open("", {.split = "2 of 5"})->size(), 1000);
  EXPECT_THAT(error_of("", {.split = "5 of 5"}),
              HasSubstr("split \"5 of 5\": parts are numbered from 0 to 4"));
  EXPECT_THAT(error_of("", {.split = "one of us"}), HasSubstr("\"train\" (500 rows)"));
}

}  // namespace
}  // namespace fathom::dataset_test
