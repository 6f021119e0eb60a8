#include "batch/question_source.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/random.h"

namespace fathom {
namespace {

// One stream of draws for each use, so that switching one off leaves the others as they were.
constexpr uint64_t kViewStream = 1;
constexpr uint64_t kCaptionStream = 2;
constexpr uint64_t kMaskStream = 3;
constexpr uint64_t kReadStream = 4;

bool asks(const Record& record) {
  return !record.question.empty();
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : std::set<std::string>(texts.begin(), texts.end()))
    all += (all.empty() ? "" : ", ") + text;
  return all;
}

void require(bool condition, const Record& record, const char* what) {
  if (!condition) fail(ErrorKind::kData, "{}: no {}", record.source, what);
}

}  // namespace

void QuestionConfig::fields(Fields& f) {
  f("max_answer_tokens", max_answer_tokens, "longest answer that is learned or generated, end mark included",
    {.low = 1, .high = 1 << 12});
  f("caption_prompt", caption_prompt, "the question to pictures that have captions and no question");
  f("captions", captions,
    "a data set of captions of the same pictures, all splits, for model.captions; empty: the questions' rows "
    "have them");
}

std::string answer_text(const Record& record) {
  return joined(record.answers);
}

std::vector<std::string> answer_names(const Dataset& dataset) {
  std::set<std::string> names;
  for (const Record& record : dataset.records())
    if (!record.answers.empty()) names.insert(answer_text(record));
  return {names.begin(), names.end()};
}

QuestionSource::QuestionSource(Setup setup) : setup_(std::move(setup)) {
  for (const std::string& answer : setup_.answers)
    class_ids_.emplace(answer, static_cast<int64_t>(class_ids_.size()));
  if (setup_.with_captions && !setup_.config.captions.empty()) {
    const auto dataset = open_dataset({.path = setup_.config.captions});
    for (const Record& record : dataset->records())
      if (!record.captions.empty()) captions_[record.image_path] = record.captions;
  }
  for (const Record& record : setup_.dataset->records()) {
    if (setup_.with_captions)
      require(!captions_of(record).empty(), record, "caption of its picture, which model.captions needs");
    if (setup_.images) require(!record.image_path.empty(), record, "image");
    require(asks(record) || !record.captions.empty(), record, "question and no caption");
    require(!asks(record) || !record.answers.empty(), record, "answer");
  }
  if (setup_.answers_follow && setup_.text.config().end_token.empty())
    fail(ErrorKind::kConfig, "data.text.end_token: answers that are generated need one");
}

const std::vector<std::string>& QuestionSource::captions_of(const Record& record) const {
  const auto place = captions_.find(record.image_path);
  return place == captions_.end() ? record.captions : place->second;
}

Sample QuestionSource::load(int64_t index, int64_t epoch) const {
  const Record& record = setup_.dataset->record(index);
  const uint64_t key = mix_seed(
      {static_cast<uint64_t>(setup_.seed), static_cast<uint64_t>(epoch), static_cast<uint64_t>(index)});
  const bool training = setup_.phase == Phase::kTrain;
  Sample sample{.index = index, .record = record};
  if (setup_.images) {
    Random random(key, kViewStream);
    sample.images.push_back(setup_.images->view(record.image_path, random));
  }
  std::vector<int32_t> row =
      setup_.text.encode(asks(record) ? record.question : setup_.config.caption_prompt);
  if (training) {
    Random random(key, kMaskStream);
    setup_.text.mask(row, random);
  }
  sample.prompt_length = static_cast<int64_t>(row.size());
  std::string answer = answer_text(record);
  if (!asks(record)) {
    const auto count = static_cast<int64_t>(record.captions.size());
    const int64_t which = training ? Random(key, kCaptionStream).below(count) : 0;
    answer = record.captions[static_cast<size_t>(which)];
  } else if (const auto place = class_ids_.find(answer); place != class_ids_.end()) {
    sample.label = place->second;
  }
  if (setup_.answers_follow) {
    const std::vector<int32_t> tokens = setup_.text.continuation(answer, setup_.config.max_answer_tokens);
    row.insert(row.end(), tokens.begin(), tokens.end());
  }
  sample.token_rows.push_back(std::move(row));
  if (setup_.with_captions) {
    const std::vector<std::string>& captions = captions_of(record);
    const auto count = static_cast<int64_t>(captions.size());
    const int64_t which = training ? Random(key, kReadStream).below(count) : 0;
    sample.token_rows.push_back(setup_.text.encode(captions[static_cast<size_t>(which)]));
  }
  return sample;
}

}  // namespace fathom
