// A manifest's row as a `Record`: one table of keys for JSON Lines, CSV and TSV alike.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/sample.h"

namespace fathom {

/// Keys: `image`, `audio` (paths), `caption`, `captions`, `text`, `question`, `answer`, `answers`, `label`,
/// `split`, `id`; anything else becomes a tag. `split` is a tag too. Immutable after construction.
class RecordBuilder {
 public:
  /// `base_folder`: what relative paths are taken from. `renames`: "theirs=ours" for manifests with other
  /// names. Errors (kConfig): a rename without "=".
  RecordBuilder(std::string base_folder, const std::vector<std::string>& renames);

  /// Adds one field. Null and empty strings count as absent. Errors (kData): a value of the wrong kind; the
  /// message has no position.
  void add(Record& record, const std::string& key, const Json& value) const;
  /// Gives the record its id; returns why it cannot be used, or an empty string.
  std::string finish(Record& record, const std::string& source) const;

 private:
  std::string absolute(const std::string& path) const;

  std::string base_folder_;
  std::map<std::string, std::string> renames_;
};

}  // namespace fathom
