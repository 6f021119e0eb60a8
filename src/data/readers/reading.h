// What the readers of all formats share while one data set is being read.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/readers/dataset.h"

namespace fathom {

/// Some of `count` parts of a data set of about equal size: "0,2 of 5".
struct Folds {
  std::string taken;  ///< their numbers from 0, between commas
  int64_t count = 0;
};
/// Nothing for a split of another form. Errors (kConfig): a number that is not below the count.
std::optional<Folds> parse_folds(const std::string& split);
/// A record's part, "0" … "count − 1": by a hash of its picture's (or sound's) file name, or of its words, so
/// that all rows of one picture fall into one.
std::string fold_of(const Record& record, int64_t count);

/// Collects the records of one data set: keeps those of the split, checks that media exist, joins the
/// captions of one image, reports what is broken. Used by one thread.
class Reading {
 public:
  Reading(const DatasetConfig& config, std::string path);

  const DatasetConfig& config() const { return config_; }
  const std::string& path() const { return path_; }

  /// Runs `read_row`; the reason it fails with (kData) is reported for `source`: thrown on, or counted.
  void attempt(const std::string& source, const std::function<void()>& read_row);
  /// Where a picture lies that a COCO or VQA file names.
  std::string picture_path(const std::string& name) const;
  /// Takes a finished record; `split` empty if the row names none. Called within `attempt`. Errors (kData): a
  /// media file that does not exist.
  void accept(Record record, const std::string& split);
  /// Whether any row so far belonged to a split, or the folder has one of the usual name.
  bool names_splits() const;
  /// True once `limit` records are in: readers stop.
  bool full() const { return full_; }

  /// Errors (kData) when no record is left, naming the splits there are.
  std::unique_ptr<Dataset> finish(DataFormat format);

 private:
  bool media_exists(const std::string& path);
  bool joins_last(const Record& record, const std::string& split) const;

  const DatasetConfig& config_;
  std::string path_;
  std::optional<Folds> folds_;  ///< in the place of splits
  std::shared_ptr<DataReport> report_;
  std::vector<Record> records_;
  std::string last_split_;
  bool full_ = false;
  std::unordered_map<std::string, bool> media_;
  std::map<std::string, int64_t> rows_of_split_;
};

// One reader a format. Each walks over `reading.path()` until the end or `reading.full()`.
void read_json_lines(Reading& reading);
void read_separated_values(Reading& reading, char separator);
void read_image_captions(Reading& reading);
void read_image_classes(Reading& reading);
void read_text_documents(Reading& reading);
void read_coco_captions(Reading& reading);
void read_vqa(Reading& reading);
void read_webdataset(Reading& reading);

/// Images below `folder` in the order of their paths (.jpg, .jpeg, .png, .webp in any case), hidden ones left
/// out.
std::vector<std::string> find_images(const std::string& folder);

}  // namespace fathom
