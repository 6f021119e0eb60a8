// Exact nearest neighbours by inner product.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace fathom {

struct SearchHit {
  int64_t index = 0;
  float score = 0;
};

/// Compares every query with every candidate, by blocks. Immutable; safe from many threads. D embed_dim.
class FlatIndex {
 public:
  explicit FlatIndex(at::Tensor candidate_ND) : candidate_ND_(std::move(candidate_ND)) {}

  int64_t size() const { return candidate_ND_.size(0); }
  /// For each query the `top` nearest candidates (fewer when there are fewer), best first; equal scores in
  /// the order of their index. Scores are float32; NaN counts as -infinity. Errors (kInternal): another
  /// width.
  std::vector<std::vector<SearchHit>> search(const at::Tensor& query_QD, int64_t top,
                                             int64_t block = 65536) const;

 private:
  at::Tensor candidate_ND_;
};

}  // namespace fathom
