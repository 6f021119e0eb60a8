// COCO captions and VQA v2.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "data/readers/dataset.h"
#include "data/readers/json_lists.h"
#include "temporary_folder.h"

namespace fathom::coco_vqa_test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class JsonDatasets : public ::testing::Test {
 protected:
  JsonDatasets() {
    for (const char* name :
         {"pictures/1.jpg", "pictures/2.jpg", "pictures/COCO_val2014_000000000042.jpg", "pictures/p7.png"})
      write(name, "");
  }
  std::string write(const std::string& name, const std::string& content) {
    std::filesystem::create_directories(std::filesystem::path(folder_ / name).parent_path());
    write_file_atomically(folder_ / name, content);
    return folder_ / name;
  }
  std::unique_ptr<Dataset> open(const std::string& content, DatasetConfig config = {}) {
    config.path = write("annotations/data.json", content);
    if (config.images.empty()) config.images = folder_ / "pictures";
    return open_dataset(config);
  }
  std::string error_of(const std::string& content, const DatasetConfig& config = {}) {
    try {
      open(content, config);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  TemporaryFolder folder_;
};

constexpr const char* kCoco = R"({"info": {"year": 2017, "list": [1]},
 "annotations": [{"image_id": 7, "id": 1, "caption": "a dog"}, {"image_id": 3, "id": 2, "caption": "a cat"},
                 {"image_id": 7, "id": 3, "caption": "a brown dog"}],
 "images": [{"id": 3, "file_name": "1.jpg", "height": 4}, {"id": 7, "file_name": "2.jpg"}]})";

TEST_F(JsonDatasets, CocoCaptionsJoinTheirPictures) {
  const auto data = open(kCoco);
  EXPECT_EQ(data->format(), DataFormat::kCocoCaptions);
  ASSERT_EQ(data->size(), 2);
  EXPECT_EQ(data->record(0).image_path, folder_ / "pictures/1.jpg");
  EXPECT_THAT(data->record(0).captions, ElementsAre("a cat"));
  EXPECT_THAT(data->record(1).captions, ElementsAre("a dog", "a brown dog"));
  EXPECT_EQ(data->record(1).id, "2.jpg");
  EXPECT_EQ(open(kCoco, {.limit = 1})->size(), 1);
  EXPECT_EQ(
      open(R"({"images": [{"id": 3, "file_name": "1.jpg"}], "annotations": []})")->record(0).captions.size(),
      0u);
}

TEST_F(JsonDatasets, BrokenCocoFilesSayWhatIsWrong) {
  const auto with = [](const std::string& images, const std::string& annotations) {
    return "{\"images\": [" + images + "], \"annotations\": [" + annotations + "]}";
  };
  const std::string image = R"({"id": 3, "file_name": "1.jpg"})",
                    caption = R"({"image_id": 3, "caption": "c"})";
  const std::string path = folder_ / "annotations/data.json";
  EXPECT_EQ(error_of(with(image, caption)), "no error");
  EXPECT_EQ(error_of(with(image, caption + R"(, {"image_id": 9, "caption": "c"})")),
            path + ": annotations[1]: image_id 9 is not among the images");
  EXPECT_THAT(error_of(with(image + R"(, {"id": 4, "file_name": "2.jpg"})", caption)),
              HasSubstr("images[1]: 2.jpg: no caption"));
  EXPECT_THAT(error_of(with(image + "," + image, caption)), HasSubstr("images[1]: image 3 is there twice"));
  EXPECT_THAT(error_of(with(R"({"id": 3, "file_name": "gone.jpg"})", caption)),
              HasSubstr("gone.jpg: no such file"));
  EXPECT_THAT(error_of(with(R"({"id": "3", "file_name": "1.jpg"})", caption)), HasSubstr("images[0]: "));
  EXPECT_THAT(error_of(with("5", caption)), HasSubstr("images[0]: expected an object, got integer"));
  EXPECT_THAT(error_of(with(image, R"({"image_id": 3})")),
              HasSubstr("annotations[0]: missing key \"caption\""));
  EXPECT_THAT(error_of(with(image, caption).substr(0, 60)), HasSubstr(path + ":1:"));
  EXPECT_THAT(error_of(R"({"images": 3})"), HasSubstr("\"images\": expected a list, got integer"));
  EXPECT_THAT(error_of(R"([{"image": "1.jpg"}])"), HasSubstr("expected an object, got array"));
  EXPECT_THAT(error_of(R"({"rows": []})"), HasSubstr("neither \"images\" (COCO) nor \"questions\" (VQA)"));
  EXPECT_THAT(error_of(R"({"annotations": []})", {.format = DataFormat::kCocoCaptions}),
              HasSubstr("no \"images\": is it a file of COCO captions?"));
  const auto data =
      open(with(image + R"(, {"id": 4, "file_name": "2.jpg"})", caption), {.on_error = OnError::kSkip});
  EXPECT_EQ(data->size(), 1);
  EXPECT_EQ(data->report().count(), 1);
}

constexpr const char* kQuestions = R"({"data_subtype": "val2014", "license": {"a": []}, "questions":
 [{"image_id": 42, "question": "how many?", "question_id": 420}, {"image_id": 42, "question": "why?", "question_id": 421}]})";
constexpr const char* kAnswers = R"({"annotations": [
 {"question_id": 421, "image_id": 42, "multiple_choice_answer": "fun", "answers": [{"answer": "fun", "answer_id": 1},
  {"answer": "joy", "answer_id": 2}], "answer_type": "other", "question_type": "why"},
 {"question_id": 420, "image_id": 42, "multiple_choice_answer": "2", "answers": []}]})";

TEST_F(JsonDatasets, VqaQuestionsMeetTheirAnswers) {
  const auto data = open(kQuestions, {.annotations = write("answers.json", kAnswers)});
  EXPECT_EQ(data->format(), DataFormat::kVqa);
  ASSERT_EQ(data->size(), 2);
  const Record& second = data->record(1);
  EXPECT_EQ(second.question, "why?");
  EXPECT_THAT(second.answers, ElementsAre("fun"));
  EXPECT_EQ(second.tags.at("human_answers"), R"(["fun","joy"])");
  EXPECT_EQ(second.tags.at("answer_type"), "other");
  EXPECT_EQ(second.id, "421");
  EXPECT_EQ(second.image_path, folder_ / "pictures/COCO_val2014_000000000042.jpg");
  EXPECT_EQ(open(kQuestions)->record(0).answers.size(), 0u);
}

TEST_F(JsonDatasets, VqaPicturesHaveNamesByPattern) {
  const std::string questions = R"({"questions": [{"image_id": 7, "question": "q", "question_id": 1}]})";
  EXPECT_EQ(open(questions, {.image_name = "p#.png"})->record(0).image_path, folder_ / "pictures/p7.png");
  EXPECT_THAT(error_of(questions, {.image_name = "p##.png"}), HasSubstr("p07.png: no such file"));
  EXPECT_THAT(error_of(questions, {.image_name = "p.png"}), HasSubstr("\"p.png\" has no #"));
  EXPECT_THAT(error_of(questions), HasSubstr("no data_subtype, which names the pictures: give image_name"));
}

TEST_F(JsonDatasets, BrokenVqaFilesSayWhatIsWrong) {
  const auto error = [&](const std::string& answers) {
    return error_of(kQuestions, {.annotations = write("answers.json", answers)});
  };
  EXPECT_THAT(
      error(R"({"annotations": [{"question_id": 420, "image_id": 42, "multiple_choice_answer": "2"}]})"),
      HasSubstr("questions[1]: question 421 has no annotation"));
  EXPECT_THAT(
      error(R"({"annotations": [{"question_id": 420, "image_id": 1, "multiple_choice_answer": "2"}]})"),
      HasSubstr("question 420 is about image 42, its annotation about image 1"));
  EXPECT_THAT(error(R"({"annotations": [{"question_id": 420, "image_id": 1}]})"),
              HasSubstr("answers.json: annotations[0]: missing key \"multiple_choice_answer\""));
  EXPECT_THAT(error(R"({"annotations": []})"), HasSubstr("answers.json: no annotations of questions"));
  EXPECT_THAT(error("{\"annotations\": [{"), HasSubstr("answers.json:1:"));
}

TEST(JsonLists, GivesItemsAndKeepsScalars) {
  std::vector<std::string> found;
  const Json rest = read_json_lists(
      R"({"a": 1, "skipped": [{"x": [1, {"items": [9]}]}], "items": [1, [2, [3]], {"k": {"items": [4]}, "l": null}], "b": "t"})",
      "f", {{"items", [&](int64_t index, const Json& item) {
               found.push_back(std::to_string(index) + item.dump());
             }}});
  EXPECT_THAT(found, ElementsAre("01", "1[2,[3]]", R"(2{"k":{"items":[4]},"l":null})"));
  EXPECT_EQ(rest.dump(), R"({"a":1,"b":"t"})");
}

}  // namespace
}  // namespace fathom::coco_vqa_test
