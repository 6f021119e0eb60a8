// Retrieval among images, texts and sounds: recall and median rank both ways, ties against us, chance beside
// them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace fathom {

/// What is compared. I images, C captions, D embed_dim. Similarity is the dot product.
struct RetrievalInput {
  at::Tensor image_ID;  ///< any floating type; same device as the text
  at::Tensor text_CD;
  at::Tensor image_of_caption_C;  ///< int64, on any device: the image that caption c belongs to
  /// Empty, or one name an image: the same figures apart for the queries of each group, among all candidates.
  std::vector<std::string> group_of_image;
};

/// One direction. Recalls are percent of the queries; NaN without queries.
struct RecallFigures {
  double r1 = 0;
  double r5 = 0;
  double r10 = 0;
  double median_rank = 0;  ///< from 1; the mean of the middle two when their number is even
  int64_t queries = 0;
  Json to_json() const;  ///< {"r1", "r5", "r10", "median_rank"}
};

struct RetrievalDirections {
  RecallFigures t2i;  ///< text → image: each caption has one right image
  RecallFigures i2t;  ///< image → text: every caption of the image is right, the best of them counts
  /// Where there are sounds: "a2i", "i2a", "a2t" and "t2a" (a: audio), the last two as far as captions have
  /// sounds.
  std::map<std::string, RecallFigures> sound = {};

  /// All of them by name, "t2i" and "i2t" first.
  std::vector<std::pair<std::string, RecallFigures>> named() const;
};

struct RetrievalReport {
  int64_t images = 0;
  int64_t captions = 0;
  int64_t sounds = 0;
  RetrievalDirections all;
  RetrievalDirections chance;  ///< what candidates in random order give
  std::map<std::string, RetrievalDirections> groups;
  int64_t rerank = 0;             ///< candidates that region scores ordered anew; 0: none
  RetrievalDirections global;     ///< where they did: the figures before
  std::optional<double> density;  ///< share of the gated layers' work that was done; of a model with gates

  /// {"task": "retrieval", "t2i", "i2t", "images", "captions", "chance": {"t2i", "i2t"}, "groups"?: {NAME:
  /// …}, "rerank"?, "global"?: {"t2i", "i2t"}, "density"?}; with sounds also "a2i", "i2a", "a2t", "t2a"
  /// wherever "t2i" stands, and "sounds".
  Json to_json() const;
};

/// For each query 1 + the number of wrong candidates whose similarity is not below that of the best right
/// one. Similarities that differ by no more than float32 rounding are ties, and NaN counts as ahead of
/// everything.
struct RetrievalRanks {
  std::vector<int64_t> t2i;  ///< one a caption
  std::vector<int64_t> i2t;  ///< one an image; 0 for an image without captions, which is no query
};

/// Similarities are computed in float64 by blocks of `block` × `block` pairs and never kept, so memory is
/// that of the embeddings plus some tens of bytes × block²; time is one product of the two. The block changes
/// no rank. Errors (kInternal): shapes that do not fit, image numbers outside [0, I).
RetrievalRanks retrieval_ranks(const RetrievalInput& input, int64_t block = 2048);

/// Errors as `retrieval_ranks`; kData without captions.
RetrievalReport evaluate_retrieval(const RetrievalInput& input);
/// The same from ranks that are already there. REQUIRES those of this input.
RetrievalReport evaluate_retrieval(const RetrievalInput& input, const RetrievalRanks& ranks);

/// Adds what a second input of the same kind says about sounds under two names: `part_to_whole` from its
/// "captions", `whole_to_part` from its "images". Groups are those that the report has. Returns the ranks of
/// its queries.
RetrievalRanks add_sounds(RetrievalReport& report, const RetrievalInput& input,
                          const std::string& part_to_whole, const std::string& whole_to_part);

/// Recalls and median of these ranks; zeros are left out.
RecallFigures recall_figures(const std::vector<int64_t>& ranks);

/// The probability that at least one of `right` among `candidates` in random order is among the first `top`.
double chance_of_recall(int64_t right, int64_t candidates, int64_t top);

}  // namespace fathom
