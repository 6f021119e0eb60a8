// Questions about pictures, with their answers as classes or as text.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "batch/image_views.h"
#include "batch/question_groups.h"
#include "batch/sample_source.h"
#include "batch/text_encoding.h"
#include "data/readers/dataset.h"

namespace fathom {

struct QuestionConfig {
  int64_t max_answer_tokens = 8;
  std::string caption_prompt = "describe the picture";
  std::string captions;
  void fields(Fields& f);
};

/// A record that asks nothing: its captions are what is to be said of its picture.
bool is_captioning(const Record& record);

/// A record's answer as one text: each of a list once, in alphabetical order, between ", ".
std::string answer_text(const Record& record);
/// The distinct answers of a data set in alphabetical order.
std::vector<std::string> answer_names(const Dataset& dataset);

/// One sample a record: its picture (where `images` are given) and, as one row of tokens, its question. With
/// `answers_follow` the answer's tokens and an end mark stand behind the question, for a model that
/// generates; the label is always the answer's class, −1 where it has none. A record without a question is a
/// captioning one: the question is `caption_prompt`, the answer one of its captions (training: drawn anew
/// each epoch). `with_captions` adds one more row of tokens, a caption of the picture (training: drawn anew
/// each epoch, otherwise the first): one of the record's own, or of those that the data set
/// `QuestionConfig::captions` has for the same picture.
///
/// With `questions_per_image` K > 1 a sample is a picture and K rows of questions about it, as
/// `QuestionGroups` deals them; where there are fewer, rows of one padding token that ask nothing, without a
/// class, stand behind them. `Sample::record` is that of the first question.
///
/// Broken rows, as the data set's report handles them at construction: a record without a picture (also with
/// K > 1), without an answer or without a caption where one is needed. Errors (kConfig): no end mark where
/// answers follow.
class QuestionSource : public SampleSource {
 public:
  struct Setup {
    std::shared_ptr<const Dataset> dataset;
    std::shared_ptr<const ImageViews> images;  ///< null: questions alone
    TextEncoding text;
    QuestionConfig config;
    std::vector<std::string> answers;  ///< classes; may be empty
    bool answers_follow = false;
    bool with_captions = false;
    Phase phase = Phase::kTrain;
    int64_t seed = 0;
    int64_t questions_per_image = 1;
  };
  explicit QuestionSource(Setup setup);
  int64_t size() const override { return groups_.size(); }
  Sample load(int64_t index, int64_t epoch) const override;
  DataReport* report() const override { return &setup_.dataset->report(); }

  const Dataset& dataset() const { return *setup_.dataset; }
  const TextEncoding& encoding() const { return setup_.text; }
  const QuestionConfig& config() const { return setup_.config; }
  int64_t questions_per_image() const { return setup_.questions_per_image; }
  /// Those that a sample really has. REQUIRES a data set that is not empty.
  double mean_questions() const {
    return static_cast<double>(setup_.dataset->size()) / static_cast<double>(size());
  }

 private:
  /// Leaves unusable rows out of the data set.
  const Dataset& keep_usable();
  const std::vector<std::string>& captions_of(const Record& record) const;
  void add_question(int64_t which, int64_t epoch, Sample& sample) const;

  std::string problem_of(const Record& record) const;

  Setup setup_;
  std::map<std::string, std::vector<std::string>> captions_;  ///< by the picture's absolute path
  QuestionGroups groups_;                                     ///< of the rows that are usable
  std::map<std::string, int64_t> class_ids_;
};

}  // namespace fathom
