// How pictures and sentences are prepared for a saved model: part of the model, kept in its folder's record.
#pragma once

#include "base/config.h"
#include "batch/audio_views.h"
#include "batch/image_views.h"
#include "batch/question_source.h"
#include "batch/text_encoding.h"
#include "models/model_folder.h"

namespace fathom {

struct ModelInputs {
  ImageViewConfig image;
  AudioViewConfig audio;
  TextEncodingConfig text;
  QuestionConfig question;
  void fields(Fields& f);
};

/// What training left under "inputs" in the folder's record; without one (a model from elsewhere), what
/// follows from the model's shape and vocabulary: its image size, its number of positions, its end-of-text
/// token. `tokenizer` may be null. Errors (kCheckpoint): a record that does not fit.
ModelInputs model_inputs(const LoadedModel& model, const Tokenizer* tokenizer, const std::string& folder);

/// The folder's tokenizer, or null without one.
std::shared_ptr<const Tokenizer> model_tokenizer(const LoadedModel& model, const std::string& folder);

/// Errors (kCheckpoint): ids [B, T] in host memory of which one has no place in a vocabulary of `vocab_size`.
void require_known_tokens(const at::Tensor& tokens_BT, int64_t vocab_size);

}  // namespace fathom
