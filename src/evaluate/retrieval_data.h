// A captioned data set, ready to be embedded and measured.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "evaluate/embedding.h"
#include "evaluate/model_inputs.h"
#include "evaluate/retrieval.h"

namespace fathom {

/// Every image of the data set and every caption of each. Immutable; made once, measured often (decoded
/// images stay in memory as far as `ImageViewConfig::cache_mb` allows).
struct RetrievalData {
  std::shared_ptr<const Dataset> dataset;
  std::shared_ptr<const ImageSource> images;
  std::shared_ptr<const TextSource> texts;
  std::vector<std::string> group_of_image;  ///< empty: no groups

  /// `group_tag`: the tag whose values are shown apart; ignored where no record has it. Errors (kData): a
  /// record without image or caption.
  RetrievalData(std::shared_ptr<const Dataset> dataset, const ModelInputs& inputs,
                std::shared_ptr<const Tokenizer> tokenizer, const std::string& group_tag = "unseen");
};

/// Embeddings of all images and captions; `group_of_image` is filled in.
RetrievalInput embed_retrieval(DualTower model, const RetrievalData& data,
                               const EvaluateOptions& options = {});

/// A data set measured.
struct MeasuredData {
  RetrievalInput input;
  RetrievalRanks global;  ///< by the embeddings alone
  RetrievalRanks ranks;   ///< that the report is of
  RetrievalReport report;
};

/// Where the model has region scores and `options.rerank` is not 0, the report is of rankings whose heads
/// they have ordered anew (evaluate/rerank.h).
MeasuredData measure_retrieval(DualTower model, const RetrievalData& data,
                               const EvaluateOptions& options = {});
RetrievalReport evaluate_retrieval(DualTower model, const RetrievalData& data,
                                   const EvaluateOptions& options = {});

}  // namespace fathom
