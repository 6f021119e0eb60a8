#include "data/sampler.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/error.h"

namespace fathom::sampler_test {
namespace {

std::vector<int64_t> epoch_of(Sampler& sampler, int64_t epoch) {
  std::vector<int64_t> all;
  for (int64_t position = 0; position < sampler.batches_per_epoch(); ++position) {
    const auto batch = sampler.batch({epoch, position});
    all.insert(all.end(), batch.begin(), batch.end());
  }
  return all;
}

std::vector<int64_t> sorted(std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  return values;
}

std::vector<int64_t> range(int64_t size) {
  std::vector<int64_t> values(static_cast<size_t>(size));
  std::iota(values.begin(), values.end(), int64_t{0});
  return values;
}

RC_GTEST_PROP(Sampler, EpochIsAPermutationAndRanksPartitionEachBatch, ()) {
  const int64_t size = *rc::gen::inRange<int64_t>(1, 200);
  const SamplerConfig config{.batch_size = *rc::gen::inRange<int64_t>(1, 40),
                             .seed = *rc::gen::inRange<int64_t>(0, 1000),
                             .drop_last = false};
  const int64_t num_ranks = *rc::gen::inRange<int64_t>(1, 6);
  const int64_t epoch = *rc::gen::inRange<int64_t>(0, 5);
  Sampler sampler(size, config);
  RC_ASSERT(sorted(epoch_of(sampler, epoch)) == range(size));
  for (int64_t position = 0; position < sampler.batches_per_epoch(); ++position) {
    std::vector<int64_t> joined;
    for (int64_t rank = 0; rank < num_ranks; ++rank) {
      const auto part = sampler.slice({epoch, position}, rank, num_ranks);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    const auto whole = sampler.batch({epoch, position});
    RC_ASSERT(joined == std::vector<int64_t>(whole.begin(), whole.end()));
  }
}

RC_GTEST_PROP(Sampler, AnyPlaceCanBeReachedWithoutWhatCameBefore, ()) {
  const int64_t size = *rc::gen::inRange<int64_t>(10, 100);
  const SamplerConfig config{.batch_size = 7, .seed = 3};
  const int64_t step = *rc::gen::inRange<int64_t>(0, 60);
  Sampler walked(size, config);
  SamplerState state;
  for (int64_t i = 0; i < step; ++i) {
    (void)walked.batch(state);
    state = walked.next(state);
  }
  Sampler jumped(size, config);
  RC_ASSERT(jumped.state_at(step) == state);
  const auto a = walked.batch(state);
  const auto b = jumped.batch(state);
  RC_ASSERT(std::vector<int64_t>(a.begin(), a.end()) == std::vector<int64_t>(b.begin(), b.end()));
}

TEST(Sampler, OrderChangesWithEpochAndSeedOnly) {
  Sampler a(1000, {.batch_size = 10, .seed = 1});
  Sampler same(1000, {.batch_size = 10, .seed = 1});
  Sampler other(1000, {.batch_size = 10, .seed = 2});
  EXPECT_EQ(epoch_of(a, 4), epoch_of(same, 4));
  EXPECT_NE(epoch_of(a, 4), epoch_of(a, 5));
  EXPECT_NE(epoch_of(a, 4), epoch_of(other, 4));
}

TEST(Sampler, OrderDoesNotDependOnTheBatchSize) {
  Sampler small(60, {.batch_size = 4, .seed = 1});
  Sampler large(60, {.batch_size = 20, .seed = 1});
  EXPECT_EQ(epoch_of(small, 2), epoch_of(large, 2));
}

TEST(Sampler, WithoutShuffleTheOrderIsTheDataSets) {
  Sampler sampler(10, {.batch_size = 4, .shuffle = false, .drop_last = false});
  EXPECT_EQ(epoch_of(sampler, 3), range(10));
  EXPECT_EQ(sampler.batch({0, 2}).size(), 2u);
}

TEST(Sampler, DropLastLeavesOutTheShortBatch) {
  Sampler sampler(10, {.batch_size = 4});
  EXPECT_EQ(sampler.batches_per_epoch(), 2);
  EXPECT_EQ(epoch_of(sampler, 0).size(), 8u);
  EXPECT_EQ(sampler.next({0, 1}), (SamplerState{1, 0}));
}

TEST(Sampler, HookRewritesTheOrder) {
  const auto reverse = [](int64_t, std::vector<int64_t> order) {
    std::reverse(order.begin(), order.end());
    return order;
  };
  Sampler plain(12, {.batch_size = 3, .seed = 5});
  Sampler hooked(12, {.batch_size = 3, .seed = 5}, reverse);
  auto expected = epoch_of(plain, 1);
  std::reverse(expected.begin(), expected.end());
  EXPECT_EQ(epoch_of(hooked, 1), expected);
}

TEST(Sampler, HookThatIsNoPermutationIsRefused) {
  Sampler sampler(12, {.batch_size = 3}, [](int64_t, std::vector<int64_t> order) {
    order[0] = order[1];
    return order;
  });
  EXPECT_THROW((void)sampler.batch({0, 0}), Error);
  EXPECT_THROW((void)sampler.batch({0, 0}), Error);
}

TEST(Sampler, BatchLargerThanTheDataSaysWhatToDo) {
  try {
    Sampler sampler(5, {.batch_size = 8});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_STREQ(error.what(), "batch_size: 8 is more than the 5 samples of the data set; lower it");
  }
}

}  // namespace
}  // namespace fathom::sampler_test
