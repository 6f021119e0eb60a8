// VQA v2: a file of questions, and one of annotations with their answers. Source: Goyal et al., "Making the V
// in VQA matter", CVPR 2017.
#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "data/readers/json_lists.h"
#include "data/readers/reading.h"

namespace fathom {
namespace {

/// What the annotations say of one question.
struct Answer {
  std::string text;   ///< the most frequent of the people's answers
  std::string human;  ///< all of them, as a JSON list
  std::string answer_type;
  std::string question_type;
  int64_t image_id = 0;
};
using Answers = std::unordered_map<int64_t, Answer>;

std::string text_of(const Json& item, const char* key) {
  const Json* value = item.find(key);
  return value != nullptr && value->is_string() ? value->as_string() : "";
}

void read_answer(Answers& answers, const Json& item) {
  if (!item.is_object()) fail(ErrorKind::kData, "expected an object, got {}", item.kind_name());
  Answer answer{.text = item.at("multiple_choice_answer").as_string(),
                .answer_type = text_of(item, "answer_type"),
                .question_type = text_of(item, "question_type"),
                .image_id = item.at("image_id").as_int()};
  if (answer.text.empty()) fail(ErrorKind::kData, "\"multiple_choice_answer\" is empty");
  if (const Json* people = item.find("answers")) {
    Json texts = Json::array();
    for (const Json& one : people->as_array()) texts.push_back(one.at("answer").as_string());
    answer.human = texts.dump();
  }
  const int64_t id = item.at("question_id").as_int();
  if (!answers.emplace(id, std::move(answer)).second)
    fail(ErrorKind::kData, "question {} is there twice", id);
}

Answers read_answers(Reading& reading) {
  Answers answers;
  const std::string& path = reading.config().annotations;
  if (path.empty()) return answers;
  const MappedFile content(path);
  read_json_lists(content.text(), path, {{"annotations", [&](int64_t index, const Json& item) {
                                            reading.attempt(fmt::format("{}: annotations[{}]", path, index),
                                                            [&] { read_answer(answers, item); });
                                          }}});
  if (answers.empty()) fail(ErrorKind::kData, "{}: no annotations of questions", path);
  return answers;
}

struct Question {
  int64_t id = 0;
  int64_t image_id = 0;
  std::string text;
  int64_t place = 0;
};

Question read_question(int64_t place, const Json& item) {
  if (!item.is_object()) fail(ErrorKind::kData, "expected an object, got {}", item.kind_name());
  Question question{item.at("question_id").as_int(), item.at("image_id").as_int(),
                    item.at("question").as_string(), place};
  if (question.text.empty()) fail(ErrorKind::kData, "\"question\" is empty");
  if (question.image_id < 0) fail(ErrorKind::kData, "\"image_id\" is {}", question.image_id);
  return question;
}

/// The pattern with its # replaced by the picture's number, filled up with zeros to as many digits.
std::string picture_name(const std::string& pattern, int64_t image_id) {
  const size_t start = pattern.find('#');
  const size_t end = std::min(pattern.find_first_not_of('#', start), pattern.size());
  return pattern.substr(0, start) + fmt::format("{:0{}}", image_id, end - start) + pattern.substr(end);
}

std::string name_pattern(const Reading& reading, const Json& rest) {
  const std::string& given = reading.config().image_name;
  if (!given.empty() && given.find('#') == std::string::npos)
    fail(ErrorKind::kConfig, "image_name: \"{}\" has no # for the number of the picture", given);
  if (!given.empty()) return given;
  const std::string subtype = text_of(rest, "data_subtype");
  if (subtype.empty())
    fail(ErrorKind::kConfig, "{}: no data_subtype, which names the pictures: give image_name",
         reading.path());
  return "COCO_" + subtype + "_############.jpg";
}

Record record_of(const Question& question, const Answer* answer) {
  Record record;
  record.id = std::to_string(question.id);
  record.question = question.text;
  if (answer == nullptr) return record;
  record.answers = {answer->text};
  const auto tag = [&](const char* name, const std::string& value) {
    if (!value.empty()) record.tags[name] = value;
  };
  tag("human_answers", answer->human);
  tag("answer_type", answer->answer_type);
  tag("question_type", answer->question_type);
  return record;
}

}  // namespace

void read_vqa(Reading& reading) {
  const Answers answers = read_answers(reading);
  const MappedFile content(reading.path());
  std::vector<Question> questions;
  const auto source_of = [&](int64_t place) {
    return fmt::format("{}: questions[{}]", reading.path(), place);
  };
  const Json rest = read_json_lists(
      content.text(), reading.path(),
      {{"questions", [&](int64_t index, const Json& item) {
          reading.attempt(source_of(index), [&] { questions.push_back(read_question(index, item)); });
        }}});
  if (questions.empty())
    fail(ErrorKind::kData, "{}: no \"questions\": is it a file of VQA questions?", reading.path());
  const std::string pattern = name_pattern(reading, rest);
  for (const Question& question : questions) {
    if (reading.full()) return;
    const std::string source = source_of(question.place);
    reading.attempt(source, [&] {
      const auto answer = answers.find(question.id);
      if (!answers.empty() && answer == answers.end())
        fail(ErrorKind::kData, "question {} has no annotation", question.id);
      if (answer != answers.end() && answer->second.image_id != question.image_id)
        fail(ErrorKind::kData, "question {} is about image {}, its annotation about image {}", question.id,
             question.image_id, answer->second.image_id);
      Record record = record_of(question, answer == answers.end() ? nullptr : &answer->second);
      record.image_path = reading.picture_path(picture_name(pattern, question.image_id));
      record.source = source;
      reading.accept(std::move(record), "");
    });
  }
}

}  // namespace fathom
