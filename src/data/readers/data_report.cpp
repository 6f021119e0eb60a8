#include "data/readers/data_report.h"

#include "base/error.h"

namespace fathom {

void DataReport::handle(const DataProblem& problem) {
  if (on_error_ == OnError::kStop)
    fail(ErrorKind::kData, "{}: {}{}", problem.source, problem.reason,
         table_.empty() ? "" : fmt::format(" ({}.on_error = \"skip\" leaves such rows out)", table_));
  add(problem.source, problem.reason);
}

void DataReport::add(const std::string& source, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  ++count_;
  if (static_cast<int64_t>(kept_.size()) < kMaxKept) kept_.push_back({source, reason});
}

int64_t DataReport::count() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

std::vector<DataProblem> DataReport::problems() const {
  const std::lock_guard lock(mutex_);
  return kept_;
}

Json DataReport::to_json() const {
  Json list = Json::array();
  for (const DataProblem& problem : problems()) {
    Json item;
    item["source"] = problem.source;
    item["reason"] = problem.reason;
    list.push_back(std::move(item));
  }
  Json out;
  out["count"] = count();
  out["problems"] = std::move(list);
  return out;
}

}  // namespace fathom
