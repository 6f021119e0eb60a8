#include "evaluate/modality_probe.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace fathom::modality_probe_test {
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

/// Captions of two kinds, of which only the second lies apart.
TEST(ModalityProbe, TakesACaptionOfEachKindInTurn) {
  RetrievalInput input = pairs(0);
  input.text_CD.slice(0, 1, {}, 2).select(1, 2) += 8;
  const ClassificationReport report = modality_probe(input);
  EXPECT_GT(report.accuracy, 65) << "half the captions give themselves away";
  EXPECT_LT(report.accuracy, 90);
}

}  // namespace
}  // namespace fathom::modality_probe_test
