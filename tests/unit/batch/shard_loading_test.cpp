// Batches from tar shards: the same for any number of workers and ranks, and after a resume.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "batch/loader.h"
#include "batch/sources.h"
#include "byte_tokenizer.h"
#include "data/image/image.h"
#include "tar_bytes.h"
#include "temporary_folder.h"

namespace fathom::shard_loading_test {
namespace {

class ShardLoading : public ::testing::Test {
 protected:
  /// Three shards of seven captioned pictures; the grey of each is its number.
  ShardLoading() {
    for (int shard = 0; shard < 3; ++shard) {
      std::string archive;
      for (int i = 0; i < 7; ++i) {
        const auto grey = static_cast<uint8_t>(shard * 7 + i);
        const std::string name = "sample" + std::to_string(grey);
        const Image image{.height = 4, .width = 4, .pixels = std::vector<uint8_t>(48, grey)};
        archive += testing::tar_file(name + ".png", encode_png(image));
        archive += testing::tar_file(name + ".txt", "picture " + std::to_string(grey));
      }
      write_file_atomically(folder_ / ("s" + std::to_string(shard) + ".tar"), archive + testing::tar_end());
    }
  }

  /// What all ranks get in the steps from `first` on: (grey, first token of the caption's number).
  std::vector<std::vector<int64_t>> batches(int64_t workers, int64_t ranks, int64_t first) const {
    std::vector<std::vector<int64_t>> found;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      std::shared_ptr<const Dataset> data = open_dataset({.path = folder_ / "s{0..2}.tar"});
      const auto views =
          std::make_shared<const ImageViews>(ImageViewConfig{.size = 4, .cache_mb = 0}, Phase::kTrain);
      const TextEncoding text(std::make_shared<const Tokenizer>(byte_tokenizer()), {});
      Loader loader(LoaderSetup{
          .source = std::make_shared<const PairedSource>(PairedSource::Setup{data, views, text, 1}),
          .sampler = {.batch_size = 4, .seed = 1},
          .loader = {.workers = workers},
          .collate = {.pad_to = 64},
          .rank = rank,
          .num_ranks = ranks});
      loader.resume({first / loader.batches_per_epoch(), first % loader.batches_per_epoch()});
      for (int64_t step = first; step < 12; ++step) {
        const auto batch = loader.next();
        const auto at = static_cast<size_t>(step - first);
        if (found.size() <= at) found.emplace_back();
        const auto image_B = batch->image_BCHW.select(1, 0).select(1, 1).select(1, 1);
        for (int64_t b = 0; b < batch->size(); ++b) {
          found[at].push_back(image_B[b].item<int64_t>());
          found[at].push_back(batch->index_B[b].item<int64_t>());
          found[at].push_back(batch->tokens_BT[b].sum().item<int64_t>());
        }
      }
    }
    return found;
  }

  TemporaryFolder folder_;
};

TEST_F(ShardLoading, DependsOnNoWorkersRanksOrResume) {
  const auto expected = batches(0, 1, 0);
  ASSERT_EQ(expected.size(), 12u);
  EXPECT_NE(expected[0], expected[5]) << "epochs are shuffled";
  EXPECT_EQ(batches(3, 1, 0), expected);
  EXPECT_EQ(batches(2, 2, 0), expected);
  EXPECT_EQ(batches(1, 1, 7), std::vector(expected.begin() + 7, expected.end()));
}

}  // namespace
}  // namespace fathom::shard_loading_test
