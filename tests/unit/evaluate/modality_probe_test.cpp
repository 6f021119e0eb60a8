#include "evaluate/modality_probe.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace fathom {
namespace {

RetrievalInput pairs(double gap) {
  torch::manual_seed(3);
  RetrievalInput input{.image_ID = torch::randn({400, 8}), .text_CD = torch::randn({800, 8})};
  input.image_ID.select(1, 2) += gap;
  input.image_of_caption_C = at::arange(400, at::kLong).repeat_interleave(2);
  return input;
}

TEST(ModalityProbe, SeesAGapAndNothingWhereThereIsNone) {
  const ClassificationReport apart = modality_probe(pairs(8)), together = modality_probe(pairs(0));
  EXPECT_EQ(apart.task, "modality_probe");
  EXPECT_EQ(apart.count, 400) << "200 pictures and as many captions";
  EXPECT_EQ(apart.chance, 50);
  EXPECT_GT(apart.accuracy, 99);
  EXPECT_LT(together.accuracy, 60);
  EXPECT_GT(together.accuracy, 40);
}

}  // namespace
}  // namespace fathom
