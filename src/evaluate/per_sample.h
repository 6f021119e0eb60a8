// What became of each sample of an evaluation, on disk: what two runs are compared by.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evaluate/answering.h"
#include "evaluate/classification.h"
#include "evaluate/retrieval_data.h"

namespace fathom {

/// One query of an evaluation.
struct SampleResult {
  std::string measure;  ///< `is_ranked`, "answers", "classification" or a name of `is_answer_figure`
  int64_t sample = 0;   ///< the query's number among those of its measure
  std::string query;    ///< what was asked, by which it is told from other data's
  std::string cluster;  ///< queries of one picture share it: they are no independent draws
  std::vector<std::string> groups;  ///< "TAG=VALUE"
  std::string said;                 ///< the answer, where there is one
  int64_t rank = 0;                 ///< of what is right; 1 is right, for answers and classes 0 wrong
};

/// "t2i", "i2t", and with sounds "a2i", "i2a", "a2t", "t2a": those whose results are ranks.
bool is_ranked(const std::string& measure);
/// "image_only_accuracy", "caption_only_accuracy", "agreement": what one modality alone answers, and where
/// the two agree.
bool is_answer_figure(const std::string& measure);

std::vector<SampleResult> sample_results(const AnswerReport& report, const AnswerData& data);
std::vector<SampleResult> sample_results(const MeasuredData& measured, const RetrievalData& data);
std::vector<SampleResult> sample_results(const ClassificationReport& report, const Dataset& dataset);

/// JSON Lines: {"measure", "sample", "query", "cluster", "groups"?, "said"?, and "right" or "rank"} a query.
/// Errors (kData) name the file.
void write_sample_results(const std::string& path, const std::vector<SampleResult>& results);
/// Errors (kData): "FILE:LINE: reason".
std::vector<SampleResult> read_sample_results(const std::string& path);

}  // namespace fathom
