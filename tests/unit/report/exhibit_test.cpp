#include "report/exhibit.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>

#include "base/file.h"
#include "byte_tokenizer.h"
#include "data/image/encode.h"
#include "temporary_folder.h"

namespace fathom::exhibit_test {
namespace {

TEST(Exhibit, ShowsTheRanksThatWereMeasured) {
  const TemporaryFolder folder;
  std::vector<Record> records;
  for (const char* name : {"0.png", "1.png"}) {
    const Image image{.height = 4, .width = 4, .pixels = std::vector<uint8_t>(48, 90)};
    write_file_atomically(folder / name, encode_png(image));
    Record& record = records.emplace_back();
    record.source = name;
    record.image_path = folder / name;
    record.captions = {std::string("of ") + name};
  }
  const RetrievalData data(std::make_shared<const Dataset>(folder.path(), DataFormat::kImageCaptions, records,
                                                           std::make_shared<DataReport>()),
                           ModelInputs{}, std::make_shared<const Tokenizer>(byte_tokenizer()), {});
  const RetrievalInput embeddings{.image_ID = torch::eye(2),
                                  .text_CD = torch::eye(2),
                                  .image_of_caption_C = torch::tensor({0, 1}, at::kLong)};
  const RetrievalRanks ranks{.t2i = {70, 71}, .i2t = {80, 81}};
  for (const Exhibit& exhibit : exhibit_text_to_image({data, embeddings, ranks})) {
    EXPECT_EQ(exhibit.rank, exhibit.query == "of 0.png" ? 70 : 71);
    EXPECT_TRUE(exhibit.hits.front().right);
  }
  std::vector<int64_t> shown;
  for (const Exhibit& exhibit : exhibit_image_to_text({data, embeddings, ranks}))
    shown.push_back(exhibit.rank);
  std::sort(shown.begin(), shown.end());
  EXPECT_EQ(shown, (std::vector<int64_t>{80, 81}));
}

}  // namespace
}  // namespace fathom::exhibit_test
