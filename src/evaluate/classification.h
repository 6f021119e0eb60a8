// Classes: of images from frozen embeddings, by their names alone or by a linear classifier; and of a
// classifier.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace fathom {

struct ClassificationReport {
  std::string task;     ///< "zero_shot", "linear_probe", "modality_probe" or "classification"
  double accuracy = 0;  ///< percent
  double chance = 0;    ///< percent: always the most frequent class
  int64_t count = 0;    ///< samples
  int64_t classes = 0;
  std::vector<bool> right = {};  ///< sample by sample, where the task tells
  /// {"task", "accuracy", "count", "classes", "chance"}
  Json to_json() const;
};

/// "{}" in each template becomes the class name, with "_" read as a space; the result is by class, then
/// template.
std::vector<std::string> fill_templates(const std::vector<std::string>& class_names,
                                        const std::vector<std::string>& templates);
/// What is used unless the user gives templates of their own.
const std::vector<std::string>& default_templates();

/// Unit-length mean of each class's unit-length prompt embeddings: [K·M, D] → [K, D] (Radford et al.,
/// "Learning transferable visual models from natural language supervision", ICML 2021, section 3.1.4).
at::Tensor class_embeddings(const at::Tensor& prompt_PD, int64_t num_classes);

/// The class of the greatest score; a tie with a wrong class, and NaN, count against us. `label_N` int64 in
/// [0, K). Shapes: score_NK.
ClassificationReport score_classes(const at::Tensor& score_NK, const at::Tensor& label_N);

/// Labelled features: [N, D] of any floating type, int64 [N].
struct LabelledFeatures {
  at::Tensor feature_ND;
  at::Tensor label_N;
};

/// A linear probe: features are standardised by the training part, then multinomial logistic regression with
/// `strength` · |W|² ÷ 2 (biases free), minimised by L-BFGS in float64. The strength is the one of
/// `strengths` with the best accuracy on a tenth of the training part (drawn by `seed`), on which it is not
/// trained.
struct ProbeOptions {
  std::vector<double> strengths = {1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
  int64_t seed = 0;
  int64_t max_iterations = 200;
};

/// Errors (kData): a part without features, fewer than two classes or ten training samples.
ClassificationReport linear_probe(const LabelledFeatures& train, const LabelledFeatures& test,
                                  int64_t num_classes, const ProbeOptions& options = {});

}  // namespace fathom
