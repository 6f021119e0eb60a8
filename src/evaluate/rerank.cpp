// Q queries, N candidates, K of them at the head of a ranking.
#include "evaluate/rerank.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"

namespace fathom {
namespace {

/// Similarities of so many pairs are in memory at once.
constexpr int64_t kPairsAtOnce = int64_t{1} << 22;
constexpr double kLogitTieShare = 0x1p-21;

/// The rank of the best right candidate of a query whose head is `index_K`.
int64_t rank_in_head(const at::Tensor& score_K, const at::Tensor& right_K) {
  const at::Tensor score = score_K.to(at::kDouble);
  const at::Tensor best = score.masked_select(right_K).max();
  const at::Tensor bar = best - kLogitTieShare * score.abs().max();
  // "Not below" rather than "above or equal", so that NaN is against us.
  return 1 + score.lt(bar).logical_not().logical_and(right_K.logical_not()).sum().item<int64_t>();
}

struct Direction {
  const at::Tensor& query_QD;
  const at::Tensor& candidate_ND;
  const std::vector<int64_t>& rank_Q;
  std::function<at::Tensor(int64_t query, const at::Tensor& index_K)> is_right;
  std::function<at::Tensor(const at::Tensor& query_1, const at::Tensor& index_K)> score;
};

std::vector<int64_t> rerank(const Direction& direction, int64_t top) {
  std::vector<int64_t> ranks = direction.rank_Q;
  const int64_t candidates = direction.candidate_ND.size(0);
  const int64_t block = std::max<int64_t>(1, kPairsAtOnce / std::max<int64_t>(1, candidates));
  const at::Tensor candidate_ND = direction.candidate_ND.to(at::kDouble);
  for (int64_t start = 0; start < direction.query_QD.size(0); start += block) {
    const at::Tensor query_BD = direction.query_QD.slice(0, start, start + block).to(at::kDouble);
    const at::Tensor head_BK =
        std::get<1>(at::mm(query_BD, candidate_ND.t()).topk(std::min(top, candidates), 1));
    for (int64_t row = 0; row < head_BK.size(0); ++row) {
      int64_t& rank = ranks[static_cast<size_t>(start + row)];
      if (rank == 0 || rank > top) continue;  // no query, or its right candidates stand behind the head
      const at::Tensor index_K = head_BK[row];
      const at::Tensor right_K = direction.is_right(start + row, index_K);
      if (!right_K.any().item<bool>()) continue;  // a tie at the head's border
      const at::Tensor query_1 = at::full({1}, start + row, index_K.options());
      rank = rank_in_head(direction.score(query_1, index_K), right_K);
    }
  }
  return ranks;
}

}  // namespace

RetrievalRanks reranked(const RetrievalInput& input, const RetrievalRanks& ranks, int64_t top,
                        const PairScorer& score) {
  FATHOM_CHECK(top >= 1, "[rerank] expected at least one candidate, got {}", top);
  const torch::NoGradGuard no_grad;
  const at::Tensor owner_C = input.image_of_caption_C.to(input.text_CD.device(), at::kLong);
  const Direction t2i{
      .query_QD = input.text_CD,
      .candidate_ND = input.image_ID,
      .rank_Q = ranks.t2i,
      .is_right = [&](int64_t caption, const at::Tensor& image_K) { return image_K.eq(owner_C[caption]); },
      .score = [&](const at::Tensor& caption, const at::Tensor& image_K) { return score(caption, image_K); }};
  const Direction i2t{
      .query_QD = input.image_ID,
      .candidate_ND = input.text_CD,
      .rank_Q = ranks.i2t,
      .is_right = [&](int64_t image,
                      const at::Tensor& caption_K) { return owner_C.index_select(0, caption_K).eq(image); },
      .score = [&](const at::Tensor& image, const at::Tensor& caption_K) { return score(caption_K, image); }};
  return {.t2i = rerank(t2i, top), .i2t = rerank(i2t, top)};
}

at::Tensor rerank_logits(const DualTower& model, const PairSide& text, const PairSide& image) {
  FATHOM_CHECK(!model->region().is_empty(), "[rerank] expected a model with region scores");
  return model->logit_scale() * at::mm(text.whole_ND, image.whole_ND.t()) +
         model->region()->logit_scale() * pair_scores(text, image);
}

}  // namespace fathom
