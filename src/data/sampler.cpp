#include "data/sampler.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace fathom {
namespace {

constexpr uint64_t kShuffleStream = 0x5a;

bool is_permutation_of_range(std::vector<int64_t> order, int64_t size) {
  if (static_cast<int64_t>(order.size()) != size) return false;
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < size; ++i)
    if (order[static_cast<size_t>(i)] != i) return false;
  return true;
}

}  // namespace

Sampler::Sampler(int64_t num_samples, const SamplerConfig& config, OrderHook hook)
    : num_samples_(num_samples), config_(config), hook_(std::move(hook)) {
  const int64_t batch_size = config.batch_size;
  if (batch_size < 1) fail(ErrorKind::kConfig, "batch_size is {}, expected at least 1", batch_size);
  if (num_samples < 1) fail(ErrorKind::kConfig, "the data set has no samples");
  if (config.drop_last && num_samples < batch_size)
    fail(ErrorKind::kConfig, "batch_size: {} is more than the {} samples of the data set; lower it",
         batch_size, num_samples);
  batches_per_epoch_ = config.drop_last ? num_samples / batch_size : (num_samples - 1) / batch_size + 1;
}

void Sampler::prepare(int64_t epoch) {
  if (epoch_ == epoch) return;
  epoch_ = -1;
  order_.resize(static_cast<size_t>(num_samples_));
  std::iota(order_.begin(), order_.end(), int64_t{0});
  if (config_.shuffle)
    Random({static_cast<uint64_t>(config_.seed), static_cast<uint64_t>(epoch), kShuffleStream})
        .shuffle(order_);
  if (hook_) {
    order_ = hook_(epoch, std::move(order_));
    FATHOM_CHECK(is_permutation_of_range(order_, num_samples_),
                 "[sampler] expected the order hook to return a permutation of {} samples", num_samples_);
  }
  epoch_ = epoch;
}

std::span<const int64_t> Sampler::batch(SamplerState state) {
  FATHOM_CHECK(state.epoch >= 0 && state.position >= 0 && state.position < batches_per_epoch_,
               "[sampler] expected a position below {}, got epoch {}, position {}", batches_per_epoch_,
               state.epoch, state.position);
  prepare(state.epoch);
  const int64_t start = state.position * config_.batch_size;
  const int64_t count = std::min(config_.batch_size, num_samples_ - start);
  return std::span(order_).subspan(static_cast<size_t>(start), static_cast<size_t>(count));
}

std::span<const int64_t> Sampler::slice(SamplerState state, int64_t rank, int64_t num_ranks) {
  FATHOM_CHECK(rank >= 0 && rank < num_ranks, "[sampler] expected a rank below {}, got {}", num_ranks, rank);
  const auto all = batch(state);
  const int64_t size = static_cast<int64_t>(all.size());
  const int64_t start = size * rank / num_ranks;
  const int64_t end = size * (rank + 1) / num_ranks;
  return all.subspan(static_cast<size_t>(start), static_cast<size_t>(end - start));
}

SamplerState Sampler::next(SamplerState state) const {
  if (++state.position == batches_per_epoch_) return {state.epoch + 1, 0};
  return state;
}

}  // namespace fathom
