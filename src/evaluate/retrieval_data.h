// A data set of pictures, captions and sounds, ready to be embedded and measured.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "evaluate/embedding.h"
#include "evaluate/model_inputs.h"
#include "evaluate/retrieval.h"

namespace fathom {

/// Every image of the data set, every caption of each, and every sound where the model hears. Immutable; made
/// once, measured often (decoded media stay in memory as far as `cache_mb` of their views allows).
struct RetrievalData {
  std::shared_ptr<const Dataset> dataset;  ///< without the rows that were left out
  std::shared_ptr<const ImageSource> images;
  std::shared_ptr<const TextSource> texts;
  std::shared_ptr<const AudioSource> sounds;  ///< null without any
  std::vector<std::string> group_of_image;    ///< empty: no groups
  std::vector<int64_t> record_of_image, record_of_sound;
  std::vector<int64_t> captions_with_image;  ///< places among `texts`: the rows of RetrievalInput::text_CD

  struct Options {
    std::string group_tag = "unseen";  ///< whose values are shown apart; ignored where no record has it
    bool audio_tower = false;          ///< the model's config().audio_tower
  };
  /// Broken rows, as the data set's report handles them: a record without image or caption; where the model
  /// hears, one that has fewer than two of image, captions and sound. Errors (kData): no record with both
  /// image and captions.
  RetrievalData(std::shared_ptr<const Dataset> dataset, const ModelInputs& inputs,
                std::shared_ptr<const Tokenizer> tokenizer, const Options& options);
};

/// Embeddings of all images and of the captions that have one; `group_of_image` is filled in.
RetrievalInput embed_retrieval(DualTower model, const RetrievalData& data,
                               const EvaluateOptions& options = {});

/// What became of the queries of one direction.
struct DirectionRanks {
  std::vector<int64_t> place;  ///< of each query among the data's sounds, images or texts
  std::vector<int64_t> rank;   ///< as in RetrievalRanks; 0: no query
};

/// A data set measured.
struct MeasuredData {
  RetrievalInput input;
  RetrievalRanks global;                              ///< by the embeddings alone
  RetrievalRanks ranks;                               ///< that the report is of
  at::Tensor sound_AD;                                ///< undefined without sounds
  std::map<std::string, DirectionRanks> sound_ranks;  ///< by "a2i", "i2a", "a2t", "t2a"
  RetrievalReport report;
};

/// With sounds in all six directions: each sound is one of its record's picture and captions, and all of a
/// kind are candidates. Where the model has region scores and `options.rerank` is not 0, the report is of
/// rankings whose heads they have ordered anew (evaluate/rerank.h).
MeasuredData measure_retrieval(DualTower model, const RetrievalData& data,
                               const EvaluateOptions& options = {});
RetrievalReport evaluate_retrieval(DualTower model, const RetrievalData& data,
                                   const EvaluateOptions& options = {});

}  // namespace fathom
