// Those records of a data set that have a picture, or a sound.
#pragma once

#include <cstdint>
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

}  // namespace fathom
