// How many questions a model answers rightly, and how many it answers without seeing.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "batch/collate.h"
#include "batch/question_source.h"
#include "evaluate/captioning.h"
#include "evaluate/model_inputs.h"
#include "evaluate/options.h"
#include "evaluate/vqa_accuracy.h"
#include "models/fusion/model.h"

namespace fathom {

/// Rightly answered of all.
struct AnswerCount {
  int64_t right = 0;
  int64_t count = 0;
  double accuracy() const;  ///< percent; NaN without questions
};

struct AnswerReport {
  AnswerCount all;
  AnswerCount blind;  ///< the same questions with every picture replaced by a grey one
  /// Of a model that generates, where records have captions and no question; `blind_captions` likewise.
  CaptionFigures captions, blind_captions;
  VqaFigures people, blind_people;            ///< where several people have answered a question
  std::map<std::string, AnswerCount> groups;  ///< by "TAG=VALUE"
  /// Where the model reads captions: with the picture alone and with the caption alone, and how often the two
  /// agree (right counts agreements).
  AnswerCount image_only, caption_only, agreement;
  /// Where it weighs them: the mean share of each modality, by its name.
  std::map<std::string, double> modality_weight;
  std::vector<std::string> answers;  ///< what the model said, question by question
  std::vector<std::string> image_answers,
      caption_answers;  ///< the same with that modality alone; may be empty

  /// {"task": "answers", "accuracy", "count", "caption_nats", "captions" (where there are some to foretell),
  /// "blind_accuracy", "blind_caption_nats" (where there are pictures),
  /// "vqa_accuracy", "blind_vqa_accuracy" (where rows say what people answered),
  /// "image_only_accuracy", "caption_only_accuracy", "agreement" (where there are captions),
  /// "modality_weight": {NAME: share}, "groups": {NAME: {"accuracy", "count"}}}
  Json to_json() const;
};

/// A batch's words: its questions, K a sample, and the caption that stands behind a sample's questions
/// (undefined where none does). A row that asks nothing counts as a question of one token.
struct AskedTexts {
  PromptedTokens question;
  PromptedTokens caption;
};
AskedTexts asked_texts(const Batch& batch);

/// All that the model perceives of a batch: its pictures, if there are any, and captions where it reads them.
Percept perceive(Fusion model, const Batch& batch, const ForwardContext& context = {});

/// What a `FusionTrace` of a pass over this weighs, in its order: "image", "caption", "question".
std::vector<std::string> modality_names(const Percept& percept);

/// A model's answers to the questions of a batch on its device: as classes, or generated token by token,
/// always the most probable one, until an end mark or `max_answer_tokens`. The model is in evaluation mode.
std::vector<std::string> answer_batch(Fusion model, const Batch& batch, const TextEncoding& encoding,
                                      int64_t max_answer_tokens, const ForwardContext& context = {});

/// An answer and how sure the model is of it, in [0, 1].
struct RatedAnswer {
  std::string text;
  double probability = 0;
};

/// The `top` most probable answers to each question of a batch, best first. REQUIRES AnswerKind::kClasses.
std::vector<std::vector<RatedAnswer>> rate_answers(Fusion model, const Batch& batch, int64_t top,
                                                   const ForwardContext& context = {});

/// Questions with their pictures, ready to be asked. Immutable; made once, asked often.
struct AnswerData {
  std::shared_ptr<const QuestionSource> source;
  std::vector<std::string> group_tags;

  AnswerData(std::shared_ptr<const Dataset> dataset, const FusionConfig& model, const ModelInputs& inputs,
             std::shared_ptr<const Tokenizer> tokenizer,
             std::vector<std::string> group_tags = {"unseen", "kind"});
};

/// An answer is right when it equals the record's, a list when the set is equal; a caption, when it equals
/// one of the record's.
bool is_right(const Record& record, const std::string& answer);

/// `blind` asks everything once
/// more without the pictures, and, where the model reads captions, with each modality alone. The model is put
/// into evaluation mode and must live on `options.device`.
AnswerReport evaluate_answers(Fusion model, const AnswerData& data, const EvaluateOptions& options = {},
                              bool blind = true);

}  // namespace fathom
