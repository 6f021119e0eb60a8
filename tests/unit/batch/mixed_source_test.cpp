// Several sources as one.
#include "batch/mixed_source.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "batch/loader.h"

namespace fathom::mixed_source_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Samples that say which part, sample and epoch of the part they are.
class NumberSource : public SampleSource {
 public:
  NumberSource(int32_t part, int64_t size, int64_t broken = -1) : part_(part), size_(size), broken_(broken) {}
  int64_t size() const override { return size_; }
  Sample load(int64_t index, int64_t epoch) const override {
    if (index == broken_) fail(ErrorKind::kData, "sample {} of part {} is broken", index, part_);
    Sample sample{.index = index};
    sample.token_rows = {{part_, static_cast<int32_t>(index), static_cast<int32_t>(epoch)}};
    return sample;
  }

 private:
  int32_t part_;
  int64_t size_;
  int64_t broken_;
};

std::shared_ptr<const MixedSource> mixed(const MixingConfig& config,
                                         std::vector<std::pair<int64_t, double>> parts, int64_t broken = -1) {
  MixedSource::Setup setup{.config = config, .batch_size = 4, .seed = 3};
  for (const auto& [size, weight] : parts)
    setup.parts.push_back(
        {std::make_shared<NumberSource>(static_cast<int32_t>(setup.parts.size()), size, broken), weight});
  return std::make_shared<const MixedSource>(std::move(setup));
}

std::vector<int32_t> row(const MixedSource& source, int64_t index, int64_t epoch) {
  return source.load(index, epoch).token_rows.at(0);
}

TEST(MixedSource, SharesFollowTheWeights) {
  EXPECT_THAT(mixed({}, {{30, 1}, {10, 3}})->quotas(), ElementsAre(10, 30));
  EXPECT_THAT(mixed({.epoch_samples = 100}, {{30, 1}, {10, 1}, {5, 1}})->quotas(), ElementsAre(34, 33, 33));
  EXPECT_THAT(mixed({.unit = MixUnit::kBatch}, {{30, 1}, {11, 4}})->quotas(), ElementsAre(8, 32));
}

TEST(MixedSource, EachPartGoesThroughItsSamplesInTurn) {
  const auto source = mixed({}, {{30, 1}, {10, 3}});
  std::map<std::pair<int32_t, int32_t>, int> times;  // of each (index, own epoch) of the small part
  std::map<int32_t, int> of_large;
  for (int64_t epoch = 0; epoch < 3; ++epoch)
    for (int64_t i = 0; i < source->size(); ++i) {
      const auto values = row(*source, i, epoch);
      if (values[0] == 1) ++times[{values[1], values[2]}];
      if (values[0] == 0) ++of_large[values[1]];
      EXPECT_EQ(source->load(i, epoch).index, values[0] == 0 ? values[1] : 30 + values[1]);
    }
  EXPECT_EQ(times.size(), 90u) << "ten samples in nine epochs of their own";
  for (const auto& [sample, count] : times) EXPECT_EQ(count, 1);
  EXPECT_EQ(of_large.size(), 30u) << "three epochs of ten are one of thirty";
}

TEST(MixedSource, EpochsDifferAndSeedsDecide) {
  const auto one = mixed({}, {{30, 1}, {10, 1}}), two = mixed({}, {{30, 1}, {10, 1}});
  int different = 0;
  for (int64_t i = 0; i < one->size(); ++i) {
    EXPECT_EQ(row(*one, i, 5), row(*two, i, 5));
    different += row(*one, i, 5)[0] != row(*one, i, 6)[0];
  }
  EXPECT_GT(different, 5);
}

TEST(MixedSource, BatchesMayBeOfOnePart) {
  const auto source = mixed({.unit = MixUnit::kBatch}, {{30, 1}, {10, 1}});
  std::map<int64_t, int> batches;
  for (int64_t i = 0; i < source->size(); i += 4) {
    ++batches[source->part_of(i, 2)];
    for (int64_t k = 1; k < 4; ++k) EXPECT_EQ(source->part_of(i + k, 2), source->part_of(i, 2));
  }
  EXPECT_EQ(batches[0], 5);
  EXPECT_EQ(batches[1], 5);
}

TEST(MixedSource, BatchesDependOnNoWorkersRanksOrResume) {
  const auto batches = [](int64_t workers, int64_t ranks, int64_t skipped) {
    std::vector<std::vector<int64_t>> found;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      Loader loader(LoaderSetup{.source = mixed({}, {{9, 1}, {14, 2}}),
                                .sampler = {.batch_size = 4, .shuffle = false},
                                .loader = {.workers = workers},
                                .rank = rank,
                                .num_ranks = ranks});
      SamplerState state;
      for (int64_t i = 0; i < skipped; ++i)
        state = {(i + 1) / loader.batches_per_epoch(), (i + 1) % loader.batches_per_epoch()};
      loader.resume(state);
      for (int64_t step = skipped; step < 12; ++step) {
        const auto batch = loader.next();
        const int64_t* values = batch->tokens_BT.const_data_ptr<int64_t>();
        const auto at = static_cast<size_t>(step - skipped);
        if (found.size() <= at) found.emplace_back();
        found[at].insert(found[at].end(), values, values + batch->tokens_BT.numel());
      }
    }
    return found;
  };
  const auto expected = batches(0, 1, 0);
  EXPECT_EQ(batches(3, 1, 0), expected);
  EXPECT_EQ(batches(2, 2, 0), expected);
  const auto resumed = batches(1, 1, 7);
  EXPECT_EQ(resumed, std::vector(expected.begin() + 7, expected.end()));
}

TEST(MixedSource, ABrokenSampleIsReplacedByOneOfItsPart) {
  const auto source = mixed({.unit = MixUnit::kBatch}, {{30, 1}, {10, 1}}, /*broken=*/4);
  Loader loader(LoaderSetup{.source = source,
                            .sampler = {.batch_size = 4, .shuffle = false},
                            .loader = {.workers = 0, .on_error = OnError::kSkip},
                            .num_epochs = 2});
  int64_t batches = 0;
  while (const auto batch = loader.next()) {
    const auto part_B = batch->tokens_BT.select(1, 0);
    EXPECT_EQ(part_B.min().item<int64_t>(), part_B.max().item<int64_t>());
    ++batches;
  }
  EXPECT_EQ(batches, 20);
  EXPECT_GT(source->report()->count(), 0);
}

TEST(MixedSource, WhatWouldNeverBeSeenIsRefused) {
  const auto error = [](const MixingConfig& config, std::vector<std::pair<int64_t, double>> parts) {
    try {
      mixed(config, std::move(parts));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kConfig);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(error({}, {{30, 1}, {10, 1e-4}}), HasSubstr("has none of data set 2"));
  EXPECT_THAT(error({.epoch_samples = 3}, {{30, 1}}),
              HasSubstr("an epoch of 3 samples is less than a batch of 4"));
}

}  // namespace
}  // namespace fathom::mixed_source_test
