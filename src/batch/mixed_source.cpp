#include "batch/mixed_source.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace fathom {
namespace {

constexpr uint64_t kPartStream = 0x31;
constexpr uint64_t kOrderStream = 0x32;
/// Loading ahead reaches into the next epoch.
constexpr size_t kPlansKept = 2;

/// `total` shared out by weight; what rounding leaves goes to the largest remainders.
std::vector<int64_t> share_out(int64_t total, const std::vector<MixPart>& parts) {
  double sum = 0;
  for (const MixPart& part : parts) sum += part.weight;
  std::vector<int64_t> shares;
  std::vector<std::pair<double, size_t>> remainders;
  int64_t left = total;
  for (size_t i = 0; i < parts.size(); ++i) {
    const double exact = static_cast<double>(total) * parts[i].weight / sum;
    shares.push_back(static_cast<int64_t>(std::floor(exact)));
    remainders.emplace_back(std::floor(exact) - exact, i);
    left -= shares.back();
  }
  std::sort(remainders.begin(), remainders.end());
  for (int64_t i = 0; i < left; ++i) ++shares[remainders[static_cast<size_t>(i)].second];
  return shares;
}

}  // namespace

void MixingConfig::fields(Fields& f) {
  f.choice("unit", unit, "what is drawn by weight: samples, or whole batches of one data set",
           {{"sample", MixUnit::kSample}, {"batch", MixUnit::kBatch}});
  f("epoch_samples", epoch_samples, "samples that count as an epoch; 0: as many as all data sets have",
    {.low = 0});
}

MixedSource::MixedSource(Setup setup) : setup_(std::move(setup)) {
  FATHOM_CHECK(!setup_.parts.empty() && setup_.batch_size >= 1,
               "[mixed_source] expected parts and a batch size");
  int64_t all = 0;
  for (const MixPart& part : setup_.parts) {
    FATHOM_CHECK(part.weight > 0 && part.source->size() > 0,
                 "[mixed_source] expected weights and samples above 0");
    starts_.push_back(all);
    all += part.source->size();
  }
  const int64_t wanted = setup_.config.epoch_samples > 0 ? setup_.config.epoch_samples : all;
  const int64_t unit = setup_.config.unit == MixUnit::kBatch ? setup_.batch_size : 1;
  if (wanted < setup_.batch_size)
    fail(ErrorKind::kConfig, "data.mixing: an epoch of {} samples is less than a batch of {}", wanted,
         setup_.batch_size);
  quotas_ = share_out(wanted / unit, setup_.parts);
  for (size_t i = 0; i < quotas_.size(); ++i) {
    if (quotas_[i] == 0)
      fail(ErrorKind::kConfig,
           "data.mix: with a weight of {} an epoch of {} samples has none of data set {}: raise weight or "
           "data.mixing.epoch_samples",
           setup_.parts[i].weight, wanted, i + 1);
    quotas_[i] *= unit;
    size_ += quotas_[i];
  }
}

MixedSource::Plan MixedSource::make_plan(int64_t epoch) const {
  const auto seed = static_cast<uint64_t>(setup_.seed);
  Plan plan;
  plan.reserve(static_cast<size_t>(size_));
  for (size_t p = 0; p < setup_.parts.size(); ++p) {
    const int64_t samples = setup_.parts[p].source->size();
    std::vector<int64_t> order(static_cast<size_t>(samples));
    int64_t ordered = -1;  // the part's epoch that `order` is of
    for (int64_t j = 0; j < quotas_[p]; ++j) {
      const int64_t place = epoch * quotas_[p] + j;
      const int64_t own_epoch = place / samples;
      if (own_epoch != ordered) {
        std::iota(order.begin(), order.end(), int64_t{0});
        Random({seed, p, static_cast<uint64_t>(own_epoch), kPartStream}).shuffle(order);
        ordered = own_epoch;
      }
      plan.push_back({static_cast<int64_t>(p), order[static_cast<size_t>(place % samples)], own_epoch});
    }
  }
  Random random({seed, static_cast<uint64_t>(epoch), kOrderStream});
  if (setup_.config.unit == MixUnit::kSample) {
    random.shuffle(plan);
    return plan;
  }
  std::vector<int64_t> batches(static_cast<size_t>(size_ / setup_.batch_size));
  std::iota(batches.begin(), batches.end(), int64_t{0});
  random.shuffle(batches);
  Plan shuffled;
  shuffled.reserve(plan.size());
  for (const int64_t batch : batches)
    shuffled.insert(shuffled.end(), plan.begin() + batch * setup_.batch_size,
                    plan.begin() + (batch + 1) * setup_.batch_size);
  return shuffled;
}

std::shared_ptr<const MixedSource::Plan> MixedSource::plan_of(int64_t epoch) const {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const Plan>& plan = plans_[epoch];
  if (!plan) plan = std::make_shared<const Plan>(make_plan(epoch));
  const std::shared_ptr<const Plan> found = plan;
  while (plans_.size() > kPlansKept)
    plans_.erase(plans_.begin()->first == epoch ? std::prev(plans_.end()) : plans_.begin());
  return found;
}

int64_t MixedSource::part_of(int64_t index, int64_t epoch) const {
  return (*plan_of(epoch))[static_cast<size_t>(index)].part;
}

Sample MixedSource::load(int64_t index, int64_t epoch) const {
  const Draw draw = (*plan_of(epoch))[static_cast<size_t>(index)];
  const auto part = static_cast<size_t>(draw.part);
  Sample sample = setup_.parts[part].source->load(draw.index, draw.epoch);
  sample.index = starts_[part] + draw.index;
  return sample;
}

int64_t MixedSource::replacement(int64_t index, int64_t epoch, Random& random) const {
  const std::shared_ptr<const Plan> plan = plan_of(epoch);
  const int64_t part = (*plan)[static_cast<size_t>(index)].part;
  int64_t candidate = random.below(size_);
  while ((*plan)[static_cast<size_t>(candidate)].part != part) candidate = (candidate + 1) % size_;
  return candidate;
}

}  // namespace fathom
