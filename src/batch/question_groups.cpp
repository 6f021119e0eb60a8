#include "batch/question_groups.h"

#include <numeric>
#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "base/random.h"

namespace fathom {
namespace {

constexpr uint64_t kGroupStream = 0x6f;

/// The number of each record's picture, in the order of their first records.
std::vector<int64_t> number_pictures(const std::vector<Record>& records, bool by_path) {
  std::vector<int64_t> numbers(records.size());
  std::iota(numbers.begin(), numbers.end(), int64_t{0});
  if (!by_path) return numbers;
  std::unordered_map<std::string_view, int64_t> known;
  for (size_t i = 0; i < records.size(); ++i)
    numbers[i] = known.try_emplace(records[i].image_path, static_cast<int64_t>(known.size())).first->second;
  return numbers;
}

}  // namespace

QuestionGroups::QuestionGroups(const std::vector<Record>& records, int64_t most, int64_t seed)
    : most_(most), seed_(seed), questions_(records.size()) {
  FATHOM_CHECK(most >= 1, "[question_groups] expected at least 1 question a group, got {}", most);
  const std::vector<int64_t> pictures = number_pictures(records, most > 1);
  for (const int64_t picture : pictures) {
    if (picture + 2 > static_cast<int64_t>(starts_.size())) starts_.resize(static_cast<size_t>(picture) + 2);
    ++starts_[static_cast<size_t>(picture) + 1];
  }
  std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
  std::vector<int64_t> next = starts_;
  for (size_t i = 0; i < pictures.size(); ++i)
    questions_[static_cast<size_t>(next[static_cast<size_t>(pictures[i])]++)] = static_cast<int64_t>(i);
  for (size_t picture = 0; picture + 1 < starts_.size(); ++picture)
    for (int64_t part = 0; part * most < starts_[picture + 1] - starts_[picture]; ++part)
      groups_.push_back({static_cast<int64_t>(picture), part});
}

std::vector<int64_t> QuestionGroups::questions(int64_t group, int64_t epoch) const {
  const auto [picture, part] = groups_[static_cast<size_t>(group)];
  const int64_t start = starts_[static_cast<size_t>(picture)];
  const int64_t count = starts_[static_cast<size_t>(picture) + 1] - start;
  const int64_t parts = (count - 1) / most_ + 1;
  std::vector<int64_t> dealt(questions_.begin() + start, questions_.begin() + start + count);
  Random({static_cast<uint64_t>(seed_), static_cast<uint64_t>(epoch), static_cast<uint64_t>(picture),
          kGroupStream})
      .shuffle(dealt);
  return {dealt.begin() + count * part / parts, dealt.begin() + count * (part + 1) / parts};
}

}  // namespace fathom
