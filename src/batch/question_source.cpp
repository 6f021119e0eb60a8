#include "batch/question_source.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "batch/draw_streams.h"
#include "batch/row_error.h"
#include "data/readers/dataset_part.h"

namespace fathom {
namespace {

constexpr uint64_t kReadStream = 4;

uint64_t key_of(int64_t seed, int64_t epoch, int64_t index) {
  return mix_seed({static_cast<uint64_t>(seed), static_cast<uint64_t>(epoch), static_cast<uint64_t>(index)});
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : std::set<std::string>(texts.begin(), texts.end()))
    all += (all.empty() ? "" : ", ") + text;
  return all;
}

std::map<std::string, std::vector<std::string>> read_captions(const QuestionSource::Setup& setup) {
  std::map<std::string, std::vector<std::string>> captions;
  if (!setup.with_captions || setup.config.captions.empty()) return captions;
  const auto dataset = open_dataset({.path = setup.config.captions});
  for (const Record& record : dataset->records())
    if (!record.captions.empty() && !record.image_path.empty())
      captions[absolute_path(record.image_path)] = record.captions;
  return captions;
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

bool is_captioning(const Record& record) {
  return record.question.empty();
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

QuestionSource::QuestionSource(Setup setup)
    : setup_(std::move(setup)),
      captions_(read_captions(setup_)),
      groups_(keep_usable().records(), setup_.questions_per_image, setup_.seed) {
  for (const std::string& answer : setup_.answers)
    class_ids_.emplace(answer, static_cast<int64_t>(class_ids_.size()));
  if (setup_.answers_follow && setup_.text.config().end_token.empty())
    fail(ErrorKind::kConfig, "data.text.end_token: answers that are generated need one");
}

const Dataset& QuestionSource::keep_usable() {
  setup_.dataset =
      usable_records(setup_.dataset, [this](const Record& record) { return problem_of(record); });
  return *setup_.dataset;
}

std::string QuestionSource::problem_of(const Record& record) const {
  if (setup_.with_captions && captions_of(record).empty())
    return "no caption of its picture, which model.captions needs";
  if (setup_.images && record.image_path.empty()) return "no image";
  if (setup_.questions_per_image > 1 && record.image_path.empty())
    return "no image, which data.pairing.questions_per_image needs";
  if (is_captioning(record) && record.captions.empty()) return "no question and no caption";
  if (is_captioning(record)) return setup_.answers.empty() ? "" : "no question, and captions are not chosen";
  return record.answers.empty() ? "no answer" : "";
}

const std::vector<std::string>& QuestionSource::captions_of(const Record& record) const {
  if (captions_.empty() || record.image_path.empty()) return record.captions;
  const auto place = captions_.find(absolute_path(record.image_path));
  return place == captions_.end() ? record.captions : place->second;
}

Sample QuestionSource::load(int64_t index, int64_t epoch) const {
  const std::vector<int64_t> asked = groups_.questions(index, epoch);
  const Record& record = setup_.dataset->record(asked.front());
  const uint64_t key = key_of(setup_.seed, epoch, index);
  Sample sample{.index = index, .record = record, .labels = {}};
  if (setup_.images) {
    Random random(key, kViewStream);
    sample.images.push_back(
        in_row_of(record, [&] { return setup_.images->view(record.image_path, random); }));
  }
  for (const int64_t which : asked) add_question(which, epoch, sample);
  while (static_cast<int64_t>(sample.labels.size()) < setup_.questions_per_image) {
    sample.token_rows.push_back({setup_.text.padding_id()});
    sample.prompt_lengths.push_back(0);
    sample.labels.push_back(-1);
  }
  if (setup_.with_captions) {
    const std::vector<std::string>& captions = captions_of(record);
    const auto count = static_cast<int64_t>(captions.size());
    const int64_t which = setup_.phase == Phase::kTrain ? Random(key, kReadStream).below(count) : 0;
    sample.token_rows.push_back(setup_.text.encode(captions[static_cast<size_t>(which)]));
  }
  return sample;
}

void QuestionSource::add_question(int64_t which, int64_t epoch, Sample& sample) const {
  const Record& record = setup_.dataset->record(which);
  const uint64_t key = key_of(setup_.seed, epoch, which);
  const bool training = setup_.phase == Phase::kTrain;
  std::vector<int32_t> row =
      setup_.text.encode(is_captioning(record) ? setup_.config.caption_prompt : record.question);
  if (training) {
    Random random(key, kTokenMaskStream);
    setup_.text.mask(row, random);
  }
  sample.prompt_lengths.push_back(static_cast<int64_t>(row.size()));
  int64_t label = -1;
  std::string answer = answer_text(record);
  if (is_captioning(record)) {
    const auto count = static_cast<int64_t>(record.captions.size());
    const int64_t drawn = training ? Random(key, kCaptionStream).below(count) : 0;
    answer = record.captions[static_cast<size_t>(drawn)];
  } else if (const auto place = class_ids_.find(answer); place != class_ids_.end()) {
    label = place->second;
  }
  sample.labels.push_back(label);
  if (setup_.answers_follow) {
    const std::vector<int32_t> tokens = setup_.text.continuation(answer, setup_.config.max_answer_tokens);
    row.insert(row.end(), tokens.begin(), tokens.end());
  }
  sample.token_rows.push_back(std::move(row));
}

}  // namespace fathom
