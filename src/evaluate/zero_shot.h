// Classification of labelled images by a dual tower or an image encoder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "evaluate/classification.h"
#include "evaluate/embedding.h"
#include "evaluate/model_inputs.h"

namespace fathom {

/// Images of a data set with class ids by `class_names`. Errors (kData): a record without image or label, or
/// with a label outside the names.
struct LabelledData {
  std::shared_ptr<const ImageSource> images;
  at::Tensor label_N;

  LabelledData(std::shared_ptr<const Dataset> dataset, const ModelInputs& inputs,
               const std::vector<std::string>& class_names);
};

/// Each image takes the class whose prompts lie nearest.
ClassificationReport evaluate_zero_shot(DualTower model, const LabelledData& data,
                                        const TextEncoding& encoding,
                                        const std::vector<std::string>& class_names,
                                        const std::vector<std::string>& templates = default_templates(),
                                        const EvaluateOptions& options = {});

}  // namespace fathom
