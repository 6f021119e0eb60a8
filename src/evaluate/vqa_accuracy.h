// The accuracy of answers to which several people have given theirs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/sample.h"

namespace fathom {

/// min(people who say the same ÷ 3, 1), averaged over the ways to leave one person out: VQA's own measure
/// (Antol et al., "VQA: visual question answering", ICCV 2015), of answers as they are written. In [0, 1]; of
/// one person whether they say the same.
double vqa_score(const std::vector<std::string>& people, const std::string& answer);

/// Over the questions whose records have the tag `human_answers`, a JSON list.
struct VqaFigures {
  double sum = 0;
  int64_t count = 0;

  void add(const Record& record, const std::string& answer);
  double accuracy() const;  ///< percent; NaN without such questions
};

}  // namespace fathom
