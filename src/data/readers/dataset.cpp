#include "data/readers/dataset.h"

#include <set>
#include <utility>

#include "base/error.h"
#include "data/readers/class_names.h"
#include "data/readers/reading.h"
#include "data/readers/record_builder.h"

namespace fathom {
namespace {

void read_format(Reading& reading, DataFormat format) {
  switch (format) {
    case DataFormat::kJsonLines:
      return read_json_lines(reading);
    case DataFormat::kCsv:
      return read_separated_values(reading, ',');
    case DataFormat::kTsv:
      return read_separated_values(reading, '\t');
    case DataFormat::kImageCaptions:
      return read_image_captions(reading);
    case DataFormat::kImageClasses:
      return read_image_classes(reading);
    case DataFormat::kCocoCaptions:
      return read_coco_captions(reading);
    case DataFormat::kVqa:
      return read_vqa(reading);
    case DataFormat::kWebDataset:
      return read_webdataset(reading);
    case DataFormat::kText:
      return read_text_documents(reading);
    case DataFormat::kAuto:
      break;
  }
  FATHOM_CHECK(false, "[open_dataset] format {} was not resolved", static_cast<int>(format));
}

}  // namespace

void DatasetConfig::fields(Fields& f) {
  f("path", path,
    "manifest (.jsonl, .csv, .tsv, COCO's or VQA's .json), text file, tar shards (\"train-{000..146}.tar\"), "
    "or folder that holds a manifest, shards or images");
  f.choice("format", format, "how to read it",
           {{"auto", DataFormat::kAuto},
            {"jsonl", DataFormat::kJsonLines},
            {"csv", DataFormat::kCsv},
            {"tsv", DataFormat::kTsv},
            {"image_captions", DataFormat::kImageCaptions},
            {"image_classes", DataFormat::kImageClasses},
            {"coco_captions", DataFormat::kCocoCaptions},
            {"vqa", DataFormat::kVqa},
            {"webdataset", DataFormat::kWebDataset},
            {"text", DataFormat::kText}});
  f("split", split,
    "rows of this split only, or of several (\"1,2,3\"), or of some of N equal parts by a hash of the "
    "picture's "
    "name (\"0 of 5\", \"1,2,3,4 of 5\"); empty for all rows");
  f("columns", columns, "\"theirs=ours\" for manifests whose keys have other names, e.g. \"filepath=image\"");
  f("images", images, "folder of the pictures that a COCO or VQA file names; empty: that file's own");
  f("annotations", annotations, "the file with the answers to VQA's questions; empty: without answers");
  f("image_name", image_name,
    "names of VQA's pictures, with one # for each digit of their number; empty: COCO's, by the file's "
    "data_subtype");
  f.choice("on_error", on_error,
           "a row that cannot be read, a missing file: stop there, or skip and count (what turns out broken "
           "when it is loaded: data.loader.on_error)",
           {{"stop", OnError::kStop}, {"skip", OnError::kSkip}});
  f("limit", limit, "read at most this many records; 0 for all", {.low = 0});
}

void DatasetConfig::validate() const {
  const RecordBuilder refuses_wrong_renames("", columns);
}

Dataset::Dataset(std::string path, DataFormat format, std::vector<Record> records,
                 std::shared_ptr<DataReport> report)
    : path_(std::move(path)), format_(format), records_(std::move(records)), report_(std::move(report)) {}

std::vector<std::string> Dataset::class_names() const {
  std::set<std::string> distinct;
  for (const Record& record : records_)
    if (!record.label.empty()) distinct.insert(record.label);
  return sorted_class_names({distinct.begin(), distinct.end()});
}

std::unique_ptr<Dataset> open_dataset(const DatasetConfig& config) {
  DetectedFormat detected{config.format, config.path};
  if (config.format == DataFormat::kAuto) detected = detect_format(config.path);
  Reading reading(config, detected.path);
  read_format(reading, detected.format);
  if (!config.split_if_named || config.split.empty() || reading.names_splits())
    return reading.finish(detected.format);
  DatasetConfig every_row = config;
  every_row.split.clear();
  return open_dataset(every_row);
}

}  // namespace fathom
