#include "data/readers/dataset_part.h"

#include <utility>

#include "base/error.h"

namespace fathom {

DatasetPart records_with(std::shared_ptr<const Dataset> dataset, std::string Record::*path) {
  DatasetPart part;
  std::vector<Record> records;
  for (int64_t i = 0; i < dataset->size(); ++i) {
    if ((dataset->record(i).*path).empty()) continue;
    part.places.push_back(i);
    records.push_back(dataset->record(i));
  }
  part.dataset = std::move(dataset);
  if (static_cast<int64_t>(records.size()) < part.dataset->size())
    part.dataset = std::make_shared<const Dataset>(part.dataset->path(), part.dataset->format(),
                                                   std::move(records), part.dataset->shared_report());
  return part;
}

std::shared_ptr<const Dataset> usable_records(std::shared_ptr<const Dataset> dataset,
                                              const std::function<std::string(const Record&)>& problem_of) {
  std::vector<Record> records;
  std::string first;
  for (const Record& record : dataset->records()) {
    const std::string problem = problem_of(record);
    if (problem.empty()) {
      records.push_back(record);
      continue;
    }
    dataset->report().handle({record.source, problem});
    if (first.empty()) first = fmt::format("{}: {}", record.source, problem);
  }
  if (static_cast<int64_t>(records.size()) == dataset->size()) return dataset;
  if (records.empty())
    fail(ErrorKind::kData, "{}: no usable rows; the first problem: {}", dataset->path(), first);
  return std::make_shared<const Dataset>(dataset->path(), dataset->format(), std::move(records),
                                         dataset->shared_report());
}

std::shared_ptr<const Dataset> some_records(std::shared_ptr<const Dataset> dataset, int64_t count) {
  if (dataset->size() <= count) return dataset;
  std::vector<Record> records;
  for (int64_t i = 0; i < count; ++i) records.push_back(dataset->record(i * dataset->size() / count));
  return std::make_shared<const Dataset>(dataset->path(), dataset->format(), std::move(records),
                                         dataset->shared_report());
}

}  // namespace fathom
