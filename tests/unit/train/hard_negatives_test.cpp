#include "train/task/hard_negatives.h"

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>
#include <torch/torch.h>

#include <numeric>
#include <set>

#include "base/error.h"
#include "base/random.h"
#include "batch/loader.h"
#include "nn/temperature.h"
#include "train/task/neighbour_order.h"

namespace fathom::hard_negatives_test {
namespace {

using ::testing::ElementsAre;

std::vector<int64_t> sorted(std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  return values;
}

std::vector<int64_t> numbers(int64_t count) {
  std::vector<int64_t> all(static_cast<size_t>(count));
  std::iota(all.begin(), all.end(), int64_t{0});
  return all;
}

RC_GTEST_PROP(NeighbourOrder, IsAPermutation, ()) {
  const int64_t count = *rc::gen::inRange<int64_t>(1, 60);
  const NeighbourOrder options{.group = *rc::gen::inRange<int64_t>(1, 9),
                               .max_similarity = *rc::gen::element(1.0, 0.3),
                               .pool = *rc::gen::inRange<int64_t>(1, 40),
                               .key = *rc::gen::arbitrary<uint64_t>()};
  torch::manual_seed(count);
  const at::Tensor bank = unit_length(torch::randn({count, 4}));
  const std::vector<int64_t> order = group_neighbours(numbers(count), bank, options);
  RC_ASSERT(sorted(order) == numbers(count));
  RC_ASSERT(order == group_neighbours(numbers(count), bank, options));
}

/// Forty samples about eight subjects, sample i about subject i % 8.
at::Tensor subjects() {
  torch::manual_seed(1);
  const at::Tensor centre = torch::randn({8, 16});
  return unit_length(centre.repeat({5, 1}) + 0.2 * torch::randn({40, 16}));
}

TEST(NeighbourOrder, PutsTheSameSubjectsSideBySide) {
  std::vector<int64_t> seeded = numbers(40);
  Random(3).shuffle(seeded);
  const std::vector<int64_t> order = group_neighbours(seeded, subjects(), {.group = 5, .key = 4});
  for (size_t start = 0; start < order.size(); start += 5)
    for (size_t k = 1; k < 5; ++k) EXPECT_EQ(order[start + k] % 8, order[start] % 8);
  EXPECT_NE(order, group_neighbours(seeded, subjects(), {.group = 5, .key = 5}));
}

TEST(NeighbourOrder, LeavesWhoIsTooSimilarToTheLast) {
  const at::Tensor bank = torch::tensor({{1.0, 0.0}, {1.0, 0.0}, {0.8, 0.6}, {0.0, 1.0}});
  EXPECT_THAT(group_neighbours({0, 1, 2, 3}, bank, {.group = 2, .max_similarity = 0.9, .key = 1}),
              ::testing::AnyOf(ElementsAre(0, 2, 1, 3), ElementsAre(1, 3, 0, 2)));
}

HardNegatives make_bank(const HardNegativeConfig& config, int64_t samples = 12, int64_t batch = 4) {
  return HardNegatives({.config = config,
                        .num_samples = samples,
                        .batch_size = batch,
                        .dim = 3,
                        .seed = 7,
                        .options = at::kDouble});
}

void step(HardNegatives& bank, int64_t number) {
  const auto collective = make_solo_collective();
  bank.after_step({.step = number, .collective = *collective});
}

TEST(HardNegatives, MoveByMomentumAndAreCentredWhenRefreshed) {
  HardNegatives bank = make_bank({.refresh = 2, .momentum = 0.25});
  const at::Tensor a = unit_length(torch::randn({2, 3}, at::kDouble)),
                   b = unit_length(torch::randn({2, 3}, at::kDouble));
  const at::Tensor owner = torch::tensor({5, 9}, at::kLong);
  bank.observe(owner, a);
  step(bank, 0);
  EXPECT_EQ(bank.bank().abs().sum().item<double>(), 0) << "not refreshed yet";
  bank.observe(owner, b);
  step(bank, 1);
  const at::Tensor moved = 0.25 * a + 0.75 * b;
  const at::Tensor expected = unit_length(moved - moved.mean(0, true));
  EXPECT_TRUE(at::allclose(bank.bank().index_select(0, owner), expected));
  EXPECT_EQ(bank.bank()[0].abs().sum().item<double>(), 0) << "never seen, similar to none";
}

TEST(HardNegatives, TakeTheMeanOfASamplesTexts) {
  HardNegatives several = make_bank({.refresh = 1}), mean = make_bank({.refresh = 1});
  const at::Tensor text = unit_length(torch::randn({6, 3}, at::kDouble));
  // Samples 1, 4 and, again, 1, of two texts each.
  several.observe(torch::tensor({1, 4, 1}, at::kLong), text);
  const at::Tensor each = unit_length(text.view({3, 2, 3}).mean(1));
  const at::Tensor joined = at::stack({0.5 * (each[0] + each[2]), each[1]});
  step(several, 0);
  const at::Tensor expected = unit_length(joined - joined.mean(0, true));
  EXPECT_TRUE(at::allclose(several.bank().index_select(0, torch::tensor({1, 4}, at::kLong)), expected));
}

TEST(HardNegatives, TakeSimilarPairsFromTheNegativesAndWeighTheRest) {
  HardNegatives bank = make_bank({.refresh = 1, .max_similarity = 0.5, .sharpness = 2});
  const at::Tensor text =
      torch::tensor({{1.0, 0.0, 0.0}, {0.99, 0.1, 0.0}, {-1.0, 0.0, 0.0}, {-0.3, 0.9, 0.0}}).to(at::kDouble);
  const at::Tensor owner = torch::arange(4);
  bank.observe(owner, text);
  step(bank, 0);
  PairLabels labels = label_pairs(owner, owner);
  bank.apply(labels, owner, owner);
  EXPECT_FALSE(labels.negative_RC[0][1].item<bool>());
  EXPECT_TRUE(labels.negative_RC[0][2].item<bool>());
  const at::Tensor likeness = at::mm(bank.bank(), bank.bank().t());
  const auto weight = [&](int64_t j) { return labels.log_weight_RC[0][j].exp().item<double>(); };
  EXPECT_NEAR(weight(2) + weight(3), 2, 1e-9);
  EXPECT_NEAR(weight(3) / weight(2), std::exp(2 * (likeness[0][3] - likeness[0][2]).item<double>()), 1e-9);
}

class IndexSource : public SampleSource {
 public:
  int64_t size() const override { return 40; }
  Sample load(int64_t index, int64_t) const override {
    return {.index = index, .token_rows = {{static_cast<int32_t>(index)}}};
  }
};

/// Five steps an epoch; what each step's batch shows of its samples goes into the bank.
struct LoaderOptions {
  int64_t workers = 0;
  int64_t prefetch = 4;
};
struct BankedRun {
  explicit BankedRun(const LoaderOptions& options = {})
      : bank(std::make_shared<HardNegatives>(HardNegatives::Setup{
            .config = {.refresh = 3, .group = 4}, .num_samples = 40, .batch_size = 8, .dim = 16, .seed = 2})),
        loader(LoaderSetup{
            .source = std::make_shared<IndexSource>(),
            .sampler = {.batch_size = 8, .seed = 2},
            .loader = {.workers = options.workers, .prefetch = std::min(options.prefetch, bank->lead())},
            .order = [this](int64_t epoch, std::vector<int64_t> seeded) {
              return bank->order(epoch, std::move(seeded));
            }}) {}

  std::vector<std::vector<int64_t>> train(int64_t from, int64_t to) {
    std::vector<std::vector<int64_t>> batches;
    for (int64_t number = from; number < to; ++number) {
      const Batch batch = *loader.next();
      bank->observe(batch.index_B, subjects().index_select(0, batch.index_B));
      step(*bank, number);
      const int64_t* index = batch.index_B.const_data_ptr<int64_t>();
      batches.emplace_back(index, index + batch.size());
    }
    return batches;
  }

  std::shared_ptr<HardNegatives> bank;
  Loader loader;
};

TEST(HardNegatives, OrderEpochsOnceTheBankIsFull) {
  BankedRun run;
  const auto batches = run.train(0, 25);
  const auto subjects_of = [&](int64_t batch) {
    std::set<int64_t> found;
    for (const int64_t index : batches[static_cast<size_t>(batch)]) found.insert(index % 8);
    return found.size();
  };
  size_t before = 0, after = 0;
  for (int64_t batch = 0; batch < 5; ++batch) before += subjects_of(batch);
  for (int64_t batch = 10; batch < 25; ++batch) after += subjects_of(batch);
  EXPECT_LT(static_cast<double>(after) / 15, 0.7 * static_cast<double>(before) / 5);
  for (int64_t epoch = 0; epoch < 5; ++epoch) {
    std::vector<int64_t> seen;
    for (int64_t batch = 5 * epoch; batch < 5 * epoch + 5; ++batch)
      seen.insert(seen.end(), batches[static_cast<size_t>(batch)].begin(),
                  batches[static_cast<size_t>(batch)].end());
    EXPECT_EQ(sorted(seen), numbers(40)) << "epoch " << epoch;
  }
}

TEST(HardNegatives, OrderDoesNotDependOnPrefetchOrWorkers) {
  const auto expected = BankedRun().train(0, 25);
  EXPECT_EQ(BankedRun({.prefetch = 1}).train(0, 25), expected);
  EXPECT_EQ(BankedRun({.workers = 3, .prefetch = 100}).train(0, 25), expected);
}

TEST(HardNegatives, GoOnExactlyFromAnyStep) {
  const auto expected = BankedRun().train(0, 25);
  for (int64_t stop = 1; stop < 24; ++stop) {
    BankedRun first;
    first.train(0, stop);
    BankedRun second;
    TensorMap copy;
    for (const auto& [name, tensor] : first.bank->state()) copy[name] = tensor.clone();
    second.bank->load_state(copy);
    second.loader.resume(first.loader.state());
    const std::vector<std::vector<int64_t>> rest(expected.begin() + stop, expected.end());
    EXPECT_EQ(second.train(stop, 25), rest) << "after step " << stop;
    for (const auto& [name, tensor] : second.bank->state())
      EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
  }
}

TEST(HardNegatives, RefuseAStateOfAnotherDataSet) {
  HardNegatives bank = make_bank({.refresh = 1}), other = make_bank({.refresh = 1}, 13);
  EXPECT_THROW(bank.load_state(other.state()), Error);
}

}  // namespace
}  // namespace fathom::hard_negatives_test
