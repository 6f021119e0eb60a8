#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace fathom {
namespace {

struct Candidate {
  int32_t id;
  double weight;  ///< the logit, then exp((logit − greatest) ÷ temperature)
};

bool more_probable(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

/// The `count` most probable tokens, in order.
void keep_first(std::vector<Candidate>& candidates, int64_t count) {
  const auto kept = std::min<size_t>(static_cast<size_t>(count), candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(kept),
                    candidates.end(), more_probable);
  candidates.resize(kept);
}

double total_weight(const std::vector<Candidate>& candidates) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  return total;
}

void keep_nucleus(std::vector<Candidate>& candidates, double top_p) {
  std::sort(candidates.begin(), candidates.end(), more_probable);
  const double needed = top_p * total_weight(candidates);
  double reached = 0;
  size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || reached < needed)) reached += candidates[kept++].weight;
  candidates.resize(kept);
}

}  // namespace

int32_t sample_token(std::span<const float> logits, const SamplingConfig& config, Random& random) {
  const double draw = random.uniform();
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t id = 0; id < logits.size(); ++id)
    if (std::isfinite(logits[id])) candidates.push_back({static_cast<int32_t>(id), logits[id]});
  FATHOM_CHECK(!candidates.empty(), "[sample_token] none of {} logits is finite", logits.size());
  const Candidate best = *std::min_element(candidates.begin(), candidates.end(), more_probable);
  if (config.temperature == 0) return best.id;

  if (config.top_k > 0) keep_first(candidates, config.top_k);
  for (Candidate& candidate : candidates)
    candidate.weight = std::exp((candidate.weight - best.weight) / config.temperature);
  if (config.top_p < 1) keep_nucleus(candidates, config.top_p);

  double remaining = draw * total_weight(candidates);
  for (const Candidate& candidate : candidates) {
    remaining -= candidate.weight;
    if (remaining < 0) return candidate.id;
  }
  return best.id;  // rounding left a rest behind the last token
}

}  // namespace fathom
