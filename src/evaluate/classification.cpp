#include "evaluate/classification.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"

namespace fathom {

Json ClassificationReport::to_json() const {
  return Json::Object{
      {"task", task}, {"accuracy", accuracy}, {"count", count}, {"classes", classes}, {"chance", chance}};
}

std::vector<std::string> fill_templates(const std::vector<std::string>& class_names,
                                        const std::vector<std::string>& templates) {
  std::vector<std::string> prompts;
  for (std::string name : class_names) {
    std::replace(name.begin(), name.end(), '_', ' ');
    for (std::string prompt : templates) {
      if (const size_t place = prompt.find("{}"); place != std::string::npos) prompt.replace(place, 2, name);
      prompts.push_back(std::move(prompt));
    }
  }
  return prompts;
}

const std::vector<std::string>& default_templates() {
  static const std::vector<std::string> templates = {"{}", "a {}", "a picture of a {}", "a photo of a {}",
                                                     "there is a {} in the picture"};
  return templates;
}

at::Tensor class_embeddings(const at::Tensor& prompt_PD, int64_t num_classes) {
  FATHOM_CHECK(num_classes > 0 && prompt_PD.size(0) % num_classes == 0,
               "[class_embeddings] expected as many prompts for each of {} classes, got {}", num_classes,
               prompt_PD.size(0));
  const auto mean_KD = prompt_PD.to(at::kFloat).reshape({num_classes, -1, prompt_PD.size(1)}).mean(1);
  return mean_KD / mean_KD.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12);
}

ClassificationReport score_classes(const at::Tensor& score_NK, const at::Tensor& label_N) {
  const auto label_N1 = label_N.to(score_NK.device()).unsqueeze(1);
  const auto beaten_NK = score_NK.lt(score_NK.gather(1, label_N1));
  const auto right_N = beaten_NK.sum(1).eq(score_NK.size(1) - 1).to(at::kCPU).contiguous();
  ClassificationReport report{.count = label_N.size(0), .classes = score_NK.size(1)};
  if (report.count == 0) return report;
  report.right.assign(right_N.const_data_ptr<bool>(), right_N.const_data_ptr<bool>() + report.count);
  const auto right = std::count(report.right.begin(), report.right.end(), true);
  const double share = 100.0 / static_cast<double>(report.count);
  report.accuracy = share * static_cast<double>(right);
  report.chance = share * static_cast<double>(at::bincount(label_N).max().item<int64_t>());
  return report;
}

}  // namespace fathom
