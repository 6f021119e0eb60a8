#include "evaluate/flat_index.h"

#include <torch/torch.h>

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace fathom {

std::vector<std::vector<SearchHit>> FlatIndex::search(const at::Tensor& query_QD, int64_t top,
                                                      int64_t block) const {
  FATHOM_CHECK(query_QD.dim() == 2 && query_QD.size(1) == candidate_ND_.size(1),
               "[search] expected queries of width {}", candidate_ND_.size(1));
  const torch::NoGradGuard no_grad;
  const auto query = query_QD.to(candidate_ND_.device(), at::kFloat);
  std::vector<std::vector<SearchHit>> hits(static_cast<size_t>(query.size(0)));
  for (int64_t start = 0; start < size(); start += block) {
    const auto candidates = candidate_ND_.slice(0, start, start + block).to(at::kFloat);
    const int64_t kept = std::min(top, candidates.size(0));
    auto score_QC = at::matmul(query, candidates.t());
    score_QC.masked_fill_(score_QC.isnan(), -std::numeric_limits<float>::infinity());
    const auto [score, index] = score_QC.topk(kept, 1);
    const auto score_QK = score.to(at::kCPU).contiguous(), index_QK = index.to(at::kCPU).contiguous();
    for (size_t q = 0; q < hits.size(); ++q)
      for (int64_t k = 0; k < kept; ++k) {
        const int64_t place = static_cast<int64_t>(q) * kept + k;
        hits[q].push_back(
            {start + index_QK.const_data_ptr<int64_t>()[place], score_QK.const_data_ptr<float>()[place]});
      }
  }
  for (auto& found : hits) {
    std::sort(found.begin(), found.end(), [](const SearchHit& a, const SearchHit& b) {
      return a.score != b.score ? a.score > b.score : a.index < b.index;
    });
    found.resize(std::min(found.size(), static_cast<size_t>(top)));
  }
  return hits;
}

}  // namespace fathom
