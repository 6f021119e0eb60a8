// Those records of a data set that have a picture, or a sound, or what some use needs, or a few of all.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/readers/dataset.h"

namespace fathom {

struct DatasetPart {
  std::shared_ptr<const Dataset> dataset;
  std::vector<int64_t> places;  ///< of its records in the whole
};

/// The records whose `path` (`&Record::image_path`, `&Record::audio_path`) is given, in order; the data set
/// itself where all are.
DatasetPart records_with(std::shared_ptr<const Dataset> dataset, std::string Record::*path);

/// The records that `problem_of` has nothing ("") to say of, in order; the data set itself where all are.
/// What it says of the others is handled as broken rows are: an error (kData) with place and switch, or
/// counted. Errors (kData): none is left.
std::shared_ptr<const Dataset> usable_records(std::shared_ptr<const Dataset> dataset,
                                              const std::function<std::string(const Record&)>& problem_of);

/// At most `count` records, evenly spaced; the data set itself where it has no more. REQUIRES count ≥ 1.
std::shared_ptr<const Dataset> some_records(std::shared_ptr<const Dataset> dataset, int64_t count);

}  // namespace fathom
