// Examples of answers for a report: the picture, the question, what was said, and where the model looked.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "data/sample.h"
#include "evaluate/answering.h"
#include "report/exhibit.h"

namespace fathom {

struct AnswerExhibit {
  std::string question;
  std::string said;
  std::string expected;  ///< of a captioned picture its captions: "a cup | a red cup"
  bool right = false;
  bool captioned = false;  ///< nothing was asked: the question is the captioning prompt
  /// Data URIs of JPEG pictures, empty where there is none: the picture as the model sees it, lit by the
  /// attention of the question's words to its regions, and by that of the memory slots.
  std::string picture;
  std::string reading;
  std::string memory;
  /// "image 0.71, question 0.29": the modalities' weights; empty where the model does not weigh.
  std::string weights;
};

/// Questions drawn by the seed, whatever their outcome, each asked once more for its attention. REQUIRES the
/// report of this model and data; the model lives on `evaluate.device`.
std::vector<AnswerExhibit> exhibit_answers(Fusion model, const AnswerData& data, const AnswerReport& report,
                                           const EvaluateOptions& evaluate,
                                           const ExhibitOptions& options = {});

/// `image` scaled to `pixels` a side, each region as bright as its share of attention beside the greatest
/// one's; where nothing looks a fifth of the light is left. `share_P`: float, the regions of a square grid,
/// row by row.
Image light_regions(const Image& image, const at::Tensor& share_P, int64_t pixels);

}  // namespace fathom
