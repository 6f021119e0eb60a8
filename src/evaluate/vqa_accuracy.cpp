#include "evaluate/vqa_accuracy.h"

#include <algorithm>
#include <limits>

#include "base/json.h"

namespace fathom {

double vqa_score(const std::vector<std::string>& people, const std::string& answer) {
  const auto all = static_cast<double>(people.size());
  const auto same = static_cast<double>(std::count(people.begin(), people.end(), answer));
  if (people.size() < 2) return same;
  const auto share = [](double others) { return std::min(others / 3, 1.0); };
  return same == 0 ? 0 : (same * share(same - 1) + (all - same) * share(same)) / all;
}

void VqaFigures::add(const Record& record, const std::string& answer) {
  const auto tag = record.tags.find("human_answers");
  if (tag == record.tags.end()) return;
  const Json list = parse_json(tag->second, record.source);
  std::vector<std::string> people;
  for (const Json& one : list.as_array()) people.push_back(one.as_string());
  sum += vqa_score(people, answer);
  count += 1;
}

double VqaFigures::accuracy() const {
  if (count == 0) return std::numeric_limits<double>::quiet_NaN();
  return 100 * sum / static_cast<double>(count);
}

}  // namespace fathom
