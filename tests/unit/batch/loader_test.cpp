#include "batch/loader.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace fathom::loader_test {
namespace {

using ::testing::HasSubstr;

/// Samples of differing length that depend on index and epoch, some of them slow, some of them broken.
class FakeSource : public SampleSource {
 public:
  explicit FakeSource(int64_t size, std::set<int64_t> broken = {})
      : size_(size), broken_(std::move(broken)) {}

  int64_t size() const override { return size_; }
  DataReport* report() const override { return &report_; }

  Sample load(int64_t index, int64_t epoch) const override {
    Random random({static_cast<uint64_t>(epoch), static_cast<uint64_t>(index)});
    if (random.chance(0.3)) std::this_thread::sleep_for(std::chrono::microseconds(random.below(300)));
    if (broken_.contains(index)) fail(ErrorKind::kData, "file-{}.png: broken", index);
    Sample sample{.index = index};
    sample.token_rows.emplace_back(static_cast<size_t>(1 + random.below(6)));
    for (int32_t& token : sample.token_rows[0]) token = static_cast<int32_t>(random.below(1000));
    return sample;
  }

 private:
  int64_t size_;
  std::set<int64_t> broken_;
  mutable DataReport report_;
};

LoaderSetup setup_of(std::shared_ptr<const SampleSource> source, int64_t workers, int64_t num_epochs = 2) {
  LoaderSetup setup;
  setup.source = std::move(source);
  setup.sampler = {.batch_size = 6, .seed = 4};
  setup.loader = {.workers = workers, .prefetch = 3};
  setup.num_epochs = num_epochs;
  return setup;
}

std::vector<Batch> drain(Loader& loader) {
  std::vector<Batch> batches;
  while (auto batch = loader.next()) batches.push_back(std::move(*batch));
  return batches;
}

bool same(const Batch& a, const Batch& b) {
  return at::equal(a.index_B, b.index_B) && at::equal(a.tokens_BT, b.tokens_BT) &&
         at::equal(a.length_B, b.length_B);
}

TEST(Loader, SameBatchesForAnyNumberOfWorkers) {
  const auto source = std::make_shared<FakeSource>(50);
  Loader reference(setup_of(source, 0));
  const auto expected = drain(reference);
  ASSERT_EQ(expected.size(), 16u);
  EXPECT_FALSE(same(expected[0], expected[8])) << "epochs differ";
  for (const int64_t workers : {1, 2, 5}) {
    Loader loader(setup_of(source, workers));
    const auto batches = drain(loader);
    ASSERT_EQ(batches.size(), expected.size());
    for (size_t i = 0; i < batches.size(); ++i)
      EXPECT_TRUE(same(batches[i], expected[i])) << workers << " workers, batch " << i;
  }
}

TEST(Loader, ResumesAtAnyPlace) {
  const auto source = std::make_shared<FakeSource>(50);
  Loader whole(setup_of(source, 2));
  const auto expected = drain(whole);
  for (size_t stop = 0; stop < expected.size(); stop += 3) {
    Loader first(setup_of(source, 2));
    for (size_t i = 0; i < stop; ++i) (void)first.next();
    Loader second(setup_of(source, 1));
    (void)second.next();
    second.resume(first.state());
    EXPECT_EQ(second.state(), first.state());
    const auto rest = drain(second);
    ASSERT_EQ(rest.size(), expected.size() - stop);
    for (size_t i = 0; i < rest.size(); ++i) EXPECT_TRUE(same(rest[i], expected[stop + i]));
  }
}

TEST(Loader, RefusesAPlaceThatIsNotThere) {
  Loader loader(setup_of(std::make_shared<FakeSource>(50), 1));
  EXPECT_THROW(loader.resume({0, 8}), Error);
}

TEST(Loader, RanksShareEachGlobalBatch) {
  const auto source = std::make_shared<FakeSource>(50);
  Loader whole(setup_of(source, 2));
  std::vector<std::unique_ptr<Loader>> ranks;
  for (int64_t rank = 0; rank < 3; ++rank) {
    LoaderSetup setup = setup_of(source, 2);
    setup.rank = rank;
    setup.num_ranks = 3;
    ranks.push_back(std::make_unique<Loader>(std::move(setup)));
  }
  while (const auto global = whole.next()) {
    for (int64_t rank = 0; rank < 3; ++rank) {
      const auto part = ranks[static_cast<size_t>(rank)]->next();
      EXPECT_TRUE(at::equal(part->index_B, global->index_B.narrow(0, 2 * rank, 2)));
    }
  }
  EXPECT_FALSE(ranks[0]->next());
}

TEST(Loader, OnePassDeliversEverySampleOnceInOrder) {
  Loader loader(one_pass(std::make_shared<FakeSource>(20), 6, 2));
  int64_t expected = 0;
  while (const auto batch = loader.next())
    for (int64_t i = 0; i < batch->size(); ++i) EXPECT_EQ(batch->index_B[i].item<int64_t>(), expected++);
  EXPECT_EQ(expected, 20);
}

TEST(Loader, ErrorsSurfaceInOrderWithTheFilesName) {
  for (const int64_t workers : {0, 3}) {
    LoaderSetup setup = one_pass(std::make_shared<FakeSource>(20, std::set<int64_t>{13, 17}), 6, workers);
    Loader loader(std::move(setup));
    EXPECT_TRUE(loader.next());
    EXPECT_TRUE(loader.next());
    for (int attempt = 0; attempt < 2; ++attempt) {
      try {
        (void)loader.next();
        FAIL();
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kData);
        EXPECT_STREQ(error.what(), "file-13.png: broken");
      }
    }
    EXPECT_EQ(loader.state(), (SamplerState{0, 2}));
  }
}

TEST(Loader, SkippingReplacesDeterministicallyAndCountsOnce) {
  const std::set<int64_t> broken = {3, 11, 30};
  std::vector<std::vector<Batch>> runs;
  for (const int64_t workers : {0, 1, 4}) {
    const auto source = std::make_shared<FakeSource>(50, broken);
    LoaderSetup setup = setup_of(source, workers, 3);
    setup.loader.on_error = OnError::kSkip;
    Loader loader(std::move(setup));
    runs.push_back(drain(loader));
    EXPECT_EQ(source->report()->count(), 3);
    EXPECT_THAT(source->report()->problems()[0].reason, HasSubstr("broken"));
  }
  for (const auto& run : runs) {
    ASSERT_EQ(run.size(), runs[0].size());
    for (size_t i = 0; i < run.size(); ++i) {
      EXPECT_TRUE(same(run[i], runs[0][i]));
      for (const int64_t index : broken) EXPECT_FALSE(run[i].index_B.eq(index).any().item<bool>());
    }
  }
}

TEST(Loader, AStrictStopNamesTheSwitchOfItsRecipe) {
  for (const bool recipe : {true, false}) {
    LoaderSetup setup = setup_of(std::make_shared<FakeSource>(12, std::set<int64_t>{5}), 2);
    if (recipe) setup.loader.table = "data.loader";
    Loader loader(std::move(setup));
    std::string message;
    try {
      drain(loader);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      message = error.what();
    }
    EXPECT_THAT(message, HasSubstr("broken"));
    EXPECT_EQ(message.ends_with(" (data.loader.on_error = \"skip\" puts another sample in its place)"),
              recipe)
        << message;
  }
}

TEST(Loader, SkippingGivesUpWhenNothingCanBeRead) {
  std::set<int64_t> all;
  for (int64_t i = 0; i < 12; ++i) all.insert(i);
  LoaderSetup setup = setup_of(std::make_shared<FakeSource>(12, all), 2);
  setup.loader.on_error = OnError::kSkip;
  Loader loader(std::move(setup));
  EXPECT_THROW((void)loader.next(), Error);
}

TEST(Loader, EndsWhileWorkersAreBusy) {
  Loader loader(setup_of(std::make_shared<FakeSource>(1000), 4, 0));
  EXPECT_TRUE(loader.next());
}

TEST(Loader, CountsTheTimeThatItWaited) {
  class SlowSource : public SampleSource {
   public:
    int64_t size() const override { return 6; }
    Sample load(int64_t index, int64_t) const override {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      return {.index = index, .token_rows = {{1}}};
    }
  };
  Loader loader(setup_of(std::make_shared<SlowSource>(), 0, 1));
  EXPECT_EQ(loader.wait_seconds(), 0);
  (void)loader.next();
  EXPECT_GE(loader.wait_seconds(), 0.012);
}

}  // namespace
}  // namespace fathom::loader_test
