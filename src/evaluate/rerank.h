// The head of a ranking, ordered anew by a score that is too dear for all pairs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "evaluate/retrieval.h"
#include "models/dual_tower/model.h"

namespace fathom {

/// Scores of one text with several images, or of one image with several texts: [K], for [1] and [K] indices
/// (int64, on the device of the embeddings).
using PairScorer = std::function<at::Tensor(const at::Tensor& text_index, const at::Tensor& image_index)>;

/// The ranks after the first `top` candidates of each query have been ordered by `score`. What stood behind
/// them stays there. Ties (scores that differ by float32 rounding) and NaN count against us. `ranks` are
/// those of `input`. REQUIRES top ≥ 1.
RetrievalRanks reranked(const RetrievalInput& input, const RetrievalRanks& ranks, int64_t top,
                        const PairScorer& score);

/// The sum of both scores as logits, each by its own learned temperature: the product of what the global and
/// the region softmax hold likely. [M, N]. REQUIRES a model with region scores.
at::Tensor rerank_logits(const DualTower& model, const PairSide& text, const PairSide& image);

}  // namespace fathom
