// What is in a data set, and what is wrong with it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/readers/dataset.h"

namespace fathom {

/// Smallest, largest and mean of a number of things.
struct Spread {
  int64_t count = 0;
  double least = 0;
  double most = 0;
  double sum = 0;
  void add(double value);
  double mean() const { return count == 0 ? 0 : sum / static_cast<double>(count); }
  Json to_json() const;  ///< {"min", "mean", "max"}, null without values
};

struct DatasetSummary {
  std::string path;
  DataFormat format = DataFormat::kAuto;
  int64_t num_records = 0;
  std::map<std::string, int64_t> splits;   ///< records of each; "" for those without
  std::map<std::string, int64_t> labels;   ///< records of each
  std::map<std::string, int64_t> answers;  ///< questions that have each
  int64_t num_images = 0;                  ///< distinct files
  int64_t num_audio = 0;                   ///< distinct files
  int64_t num_captions = 0;
  int64_t num_questions = 0;
  int64_t text_bytes = 0;  ///< of texts, captions and questions
  Spread caption_words;
  Spread image_height;
  Spread image_width;
  Spread audio_seconds;
  std::vector<Record> samples;         ///< the first, one in the middle, the last
  std::shared_ptr<DataReport> report;  ///< every broken row and file

  Json to_json() const;
  std::string to_text() const;
};

struct InspectOptions {
  bool decode = true;       ///< decode every image and sound; otherwise only its header is read
  int64_t num_threads = 0;  ///< 0: all of the machine's
};

/// Reads everything there is, goes on at errors. `progress` is told how many images and sounds are done, and
/// of how many. Errors: kConfig for a path that holds nothing we can read; kData when every row is broken.
DatasetSummary inspect_dataset(const DatasetConfig& config, const InspectOptions& options,
                               const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace fathom
