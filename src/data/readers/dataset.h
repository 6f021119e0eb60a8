// Data sets on disk: one `Record` a row, whatever the format.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "data/readers/data_report.h"
#include "data/sample.h"

namespace fathom {

enum class DataFormat {
  kAuto,           ///< by what lies at the path: `detect_format`
  kJsonLines,      ///< one JSON object a line
  kCsv,            ///< RFC 4180 with a header row
  kTsv,            ///< the same with tabs
  kImageCaptions,  ///< folder of images, captions in a .txt beside each (one a line)
  kImageClasses,   ///< one folder of images per class
  kCocoCaptions,   ///< COCO's captions_*.json
  kVqa,            ///< VQA v2: questions, and annotations in a file of their own
  kWebDataset,     ///< tar shards: one, several by braces, or a folder of them
  kText,           ///< documents between lines that read <|endoftext|>
};

struct DatasetConfig {
  std::string path;
  DataFormat format = DataFormat::kAuto;
  std::string split;
  std::vector<std::string> columns;
  std::string images;
  std::string annotations;
  std::string image_name;
  OnError on_error = OnError::kStop;
  int64_t limit = 0;
  bool split_if_named = false;  ///< where the data names no split at all, take every row; no recipe's key
  std::string table = {};       ///< of a recipe that holds this ("data.train"), for messages; no recipe's key
  void fields(Fields& f);
  void validate() const;
};

/// Records in the order of their file, all in memory. Immutable after `open_dataset`, so safe from many
/// threads.
class Dataset {
 public:
  Dataset(std::string path, DataFormat format, std::vector<Record> records,
          std::shared_ptr<DataReport> report);

  int64_t size() const { return static_cast<int64_t>(records_.size()); }
  const Record& record(int64_t index) const { return records_[static_cast<size_t>(index)]; }
  const std::vector<Record>& records() const { return records_; }
  const std::string& path() const { return path_; }  ///< the manifest or folder that was read
  DataFormat format() const { return format_; }      ///< never kAuto
  /// Rows left out under kSkip; loaders add the images that could not be decoded.
  DataReport& report() const { return *report_; }
  std::shared_ptr<DataReport> shared_report() const { return report_; }

  /// Distinct labels, sorted (`sorted_class_names`): their positions are the class ids.
  std::vector<std::string> class_names() const;

 private:
  std::string path_;
  DataFormat format_;
  std::vector<Record> records_;
  std::shared_ptr<DataReport> report_;
};

/// Reads a manifest or folder. A folder that holds captions.jsonl, qa.jsonl, samples.jsonl, clips.jsonl (or a
/// single .jsonl, .csv or .tsv file) is read by it, one that holds .tar files and no manifest as shards.
/// Relative media paths are taken from the manifest's folder. With a `split`, rows of another one and rows
/// without one are left out. Errors: kConfig for a path or format that does not fit; kData "FILE:LINE:
/// reason" for broken rows and for media files that do not exist (under kSkip they are counted in the
/// report); kData when nothing is left, with the splits there are.
std::unique_ptr<Dataset> open_dataset(const DatasetConfig& config);

/// The format of what lies at `path`, and the file or folder to read. Errors (kConfig): nothing there, or
/// nothing that we can read, with what was looked for.
struct DetectedFormat {
  DataFormat format;
  std::string path;
};
DetectedFormat detect_format(const std::string& path);

/// "jsonl", "csv", …: as in recipes.
const char* format_name(DataFormat format);

}  // namespace fathom
