#include "evaluate/zero_shot.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"

namespace fathom {
namespace {

int64_t class_id(const Record& record, const std::vector<std::string>& names) {
  if (record.image_path.empty() || record.label.empty())
    fail(ErrorKind::kData,
         "{}: no captions to search by, and zero-shot classification needs an image and a label in every row",
         record.source);
  const auto place = std::find(names.begin(), names.end(), record.label);
  if (place == names.end())
    fail(ErrorKind::kData, "{}: label \"{}\" is not among the {} classes", record.source, record.label,
         names.size());
  return place - names.begin();
}

}  // namespace

LabelledData::LabelledData(std::shared_ptr<const Dataset> dataset, const ModelInputs& inputs,
                           const std::vector<std::string>& class_names) {
  std::vector<int64_t> labels;
  for (const Record& record : dataset->records()) labels.push_back(class_id(record, class_names));
  label_N = torch::tensor(labels, at::kLong);
  const auto views = std::make_shared<const ImageViews>(inputs.image, Phase::kEvaluate);
  images = std::make_shared<const ImageSource>(std::move(dataset), views, /*seed=*/0, class_names);
}

ClassificationReport evaluate_zero_shot(DualTower model, const LabelledData& data,
                                        const TextEncoding& encoding,
                                        const std::vector<std::string>& class_names,
                                        const std::vector<std::string>& templates,
                                        const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  const auto prompt_PD = embed_texts(model, encoding, fill_templates(class_names, templates), options);
  const auto class_KD = class_embeddings(prompt_PD, static_cast<int64_t>(class_names.size()));
  const auto image_ND = embed_images(model, data.images, options);
  ClassificationReport report = score_classes(at::matmul(image_ND, class_KD.t()), data.label_N);
  report.task = "zero_shot";
  return report;
}

}  // namespace fathom
