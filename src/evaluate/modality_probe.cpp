#include "evaluate/modality_probe.h"

#include <torch/torch.h>

#include <vector>

namespace fathom {

ClassificationReport modality_probe(const RetrievalInput& input) {
  const at::Tensor owner_C = input.image_of_caption_C.to(at::kCPU, at::kLong).contiguous();
  std::vector<std::vector<int64_t>> captions_of(static_cast<size_t>(input.image_ID.size(0)));
  for (int64_t caption = 0; caption < owner_C.size(0); ++caption)
    captions_of[static_cast<size_t>(owner_C.const_data_ptr<int64_t>()[caption])].push_back(caption);
  std::vector<int64_t> images[2], captions[2];  // to learn from, to measure on
  for (size_t image = 0; image < captions_of.size(); ++image) {
    const std::vector<int64_t>& own = captions_of[image];
    if (own.empty()) continue;
    images[image % 2].push_back(static_cast<int64_t>(image));
    captions[image % 2].push_back(own[image / 2 % own.size()]);
  }
  const auto part = [&](int which) {
    const auto rows = [](const at::Tensor& embedding, const std::vector<int64_t>& index) {
      return embedding.to(at::kCPU).index_select(0, torch::tensor(index, at::kLong));
    };
    const auto count = static_cast<int64_t>(images[which].size());
    return LabelledFeatures{
        at::cat({rows(input.image_ID, images[which]), rows(input.text_CD, captions[which])}),
        at::arange(2, at::kLong).repeat_interleave(count)};
  };
  ClassificationReport report = linear_probe(part(0), part(1), 2);
  report.task = "modality_probe";
  return report;
}

}  // namespace fathom
