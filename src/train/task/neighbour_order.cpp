#include "train/task/neighbour_order.h"

#include <torch/torch.h>

#include <algorithm>
#include <span>

#include "base/random.h"

namespace fathom {
namespace {

using Group = std::vector<int64_t>;

/// The groups of one pool.
void group_pool(std::span<const int64_t> pool, const at::Tensor& unit_SD, const NeighbourOrder& options,
                std::vector<Group>& groups) {
  const auto size = static_cast<int64_t>(pool.size());
  const at::Tensor index = torch::tensor(std::vector<int64_t>(pool.begin(), pool.end()), at::kLong);
  const at::Tensor row_CD = unit_SD.index_select(0, index);
  const at::Tensor likeness_CC = at::mm(row_CD, row_CD.t()).to(at::kFloat).contiguous();
  std::vector<char> taken(pool.size(), 0);
  std::vector<int64_t> candidates;
  for (int64_t anchor = 0; anchor < size; ++anchor) {
    if (taken[static_cast<size_t>(anchor)]) continue;
    const float* likeness = likeness_CC.const_data_ptr<float>() + anchor * size;
    candidates.clear();
    for (int64_t other = anchor + 1; other < size; ++other)
      if (!taken[static_cast<size_t>(other)]) candidates.push_back(other);
    const auto too_near = [&](int64_t other) { return likeness[other] > options.max_similarity; };
    const auto nearer = [&](int64_t a, int64_t b) {
      if (too_near(a) != too_near(b)) return too_near(b);
      return likeness[a] != likeness[b] ? likeness[a] > likeness[b] : a < b;
    };
    const size_t others = std::min(candidates.size(), static_cast<size_t>(options.group - 1));
    std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(others),
                      candidates.end(), nearer);
    Group group = {pool[static_cast<size_t>(anchor)]};
    taken[static_cast<size_t>(anchor)] = 1;
    for (size_t k = 0; k < others; ++k) {
      taken[static_cast<size_t>(candidates[k])] = 1;
      group.push_back(pool[static_cast<size_t>(candidates[k])]);
    }
    groups.push_back(std::move(group));
  }
}

}  // namespace

std::vector<int64_t> group_neighbours(const std::vector<int64_t>& order, const at::Tensor& unit_SD,
                                      const NeighbourOrder& options) {
  const auto pool = static_cast<size_t>(std::max<int64_t>(1, options.pool / options.group) * options.group);
  std::vector<Group> groups;
  const std::span<const int64_t> all(order);
  for (size_t start = 0; start < all.size(); start += pool)
    group_pool(all.subspan(start, std::min(pool, all.size() - start)), unit_SD, options, groups);
  Group rest;
  if (!groups.empty() && static_cast<int64_t>(groups.back().size()) < options.group) {
    rest = std::move(groups.back());
    groups.pop_back();
  }
  Random(options.key).shuffle(groups);
  std::vector<int64_t> result;
  for (const Group& group : groups) result.insert(result.end(), group.begin(), group.end());
  result.insert(result.end(), rest.begin(), rest.end());
  return result;
}

}  // namespace fathom
