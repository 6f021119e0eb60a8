// Which questions about a picture make up one sample.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "data/sample.h"

namespace fathom {

/// Deals the questions of a data set into groups of one picture, at most `most` in each, as few groups as
/// hold them and as even as can be: of 9 questions, 4 and 5 where `most` is 5. An epoch's groups hold every
/// question once; which of a picture's questions meet is drawn anew each epoch. Immutable.
class QuestionGroups {
 public:
  /// Pictures are told apart by `image_path`. With `most` 1 group i is record i alone.
  QuestionGroups(const std::vector<Record>& records, int64_t most, int64_t seed);

  /// The same in every epoch.
  int64_t size() const { return static_cast<int64_t>(groups_.size()); }
  /// Positions of a group's records, a pure function of (seed, epoch, group). A group is of the same picture
  /// in every epoch.
  std::vector<int64_t> questions(int64_t group, int64_t epoch) const;

 private:
  struct Group {
    int64_t picture;
    int64_t part;  ///< of the picture's groups
  };

  int64_t most_;
  int64_t seed_;
  std::vector<int64_t> questions_;  ///< picture by picture
  std::vector<int64_t> starts_;     ///< of each picture, and the end
  std::vector<Group> groups_;
};

}  // namespace fathom
