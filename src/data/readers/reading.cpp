#include "data/readers/reading.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "data/media_file.h"

namespace fathom {
namespace {

/// Nothing but an image and captions: such rows may belong together.
bool is_caption_row(const Record& record) {
  return !record.image_path.empty() && !record.captions.empty() && record.audio_path.empty() &&
         record.text.empty() && record.question.empty() && record.answers.empty() && record.label.empty();
}

/// Whether `split` is what is wanted, or one of it: "1,2,3".
bool is_wanted(const std::string& split, const std::string& wanted) {
  if (wanted.empty() || split == wanted) return true;
  return !split.empty() && ("," + wanted + ",").find("," + split + ",") != std::string::npos;
}

std::string describe_splits(const std::map<std::string, int64_t>& rows_of_split) {
  std::string out;
  for (const auto& [split, rows] : rows_of_split) {
    if (!out.empty()) out += ", ";
    out += split.empty() ? fmt::format("{} rows without a split", rows)
                         : fmt::format("\"{}\" ({} rows)", split, rows);
  }
  return out;
}

std::optional<int64_t> parse_number(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) return std::nullopt;
  return number;
}

}  // namespace

std::optional<Folds> parse_folds(const std::string& split) {
  const size_t place = split.find(" of ");
  if (place == std::string::npos) return std::nullopt;
  const auto count = parse_number(std::string_view(split).substr(place + 4));
  if (!count || *count < 1) return std::nullopt;
  Folds folds{.taken = split.substr(0, place), .count = *count};
  for (size_t start = 0; start <= folds.taken.size();) {
    const size_t end = std::min(folds.taken.find(',', start), folds.taken.size());
    const auto number = parse_number(std::string_view(folds.taken).substr(start, end - start));
    if (!number) return std::nullopt;
    if (*number >= *count)
      fail(ErrorKind::kConfig, "split \"{}\": parts are numbered from 0 to {}", split, *count - 1);
    start = end + 1;
  }
  return folds;
}

std::string fold_of(const Record& record, int64_t count) {
  std::string name = std::filesystem::path(record.image_path).filename().string();
  if (name.empty()) name = std::filesystem::path(record.audio_path).filename().string();
  if (name.empty()) name = record.text + record.question;
  const uint64_t key = checksum64(std::as_bytes(std::span(name)));
  return std::to_string(Random({key}).below(count));
}

Reading::Reading(const DatasetConfig& config, std::string path)
    : config_(config),
      path_(std::move(path)),
      folds_(parse_folds(config.split)),
      report_(std::make_shared<DataReport>(config.on_error, config.table)) {}

bool Reading::media_exists(const std::string& path) {
  const auto [place, is_new] = media_.try_emplace(path, false);
  if (is_new) place->second = fathom::media_exists(path);
  return place->second;
}

bool Reading::joins_last(const Record& record, const std::string& split) const {
  return !records_.empty() && split == last_split_ && records_.back().image_path == record.image_path &&
         is_caption_row(record) && is_caption_row(records_.back());
}

std::string Reading::picture_path(const std::string& name) const {
  const std::filesystem::path folder = config_.images.empty() ? std::filesystem::path(path_).parent_path()
                                                              : std::filesystem::path(config_.images);
  return (folder / name).lexically_normal().string();
}

void Reading::attempt(const std::string& source, const std::function<void()>& read_row) {
  try {
    read_row();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kData) throw;
    report_->handle({source, error.what()});
  }
}

void Reading::accept(Record record, const std::string& split) {
  const std::string part = folds_ ? fold_of(record, folds_->count) : split;
  ++rows_of_split_[part];
  if (!is_wanted(part, folds_ ? folds_->taken : config_.split)) return;
  for (const std::string* path : {&record.image_path, &record.audio_path})
    if (!path->empty() && !media_exists(*path)) fail(ErrorKind::kData, "{}: no such file", *path);
  if (joins_last(record, split)) {
    auto& captions = records_.back().captions;
    captions.insert(captions.end(), record.captions.begin(), record.captions.end());
    return;
  }
  if (config_.limit > 0 && static_cast<int64_t>(records_.size()) == config_.limit) {
    full_ = true;
    return;
  }
  if (!split.empty()) record.tags["split"] = split;
  records_.push_back(std::move(record));
  last_split_ = split;
}

bool Reading::names_splits() const {
  for (const char* usual : {"train", "val", "validation", "test"})
    if (std::filesystem::is_directory(std::filesystem::path(path_) / usual)) return true;
  return std::any_of(rows_of_split_.begin(), rows_of_split_.end(),
                     [](const auto& rows) { return !rows.first.empty(); });
}

std::unique_ptr<Dataset> Reading::finish(DataFormat format) {
  if (records_.empty() && !config_.split.empty() && !rows_of_split_.empty())
    fail(ErrorKind::kData, "{}: no usable rows of split \"{}\"; there are {}", path_, config_.split,
         describe_splits(rows_of_split_));
  if (records_.empty()) {
    const auto problems = report_->problems();
    fail(ErrorKind::kData, "{}: no usable rows{}", path_,
         problems.empty() ? "" : "; the first problem: " + problems[0].source + ": " + problems[0].reason);
  }
  return std::make_unique<Dataset>(path_, format, std::move(records_), report_);
}

}  // namespace fathom
