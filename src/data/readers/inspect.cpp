#include "data/readers/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "data/audio/decode.h"
#include "data/image/decode.h"
#include "data/media_file.h"

namespace fathom {
namespace {

constexpr size_t kShownNames = 20;
constexpr int64_t kFilesAtATime = 256;

/// A file of pictures or sound, and the row that names it first.
struct MediaFile {
  std::string path;
  std::string source;
  bool is_image = true;
};

/// What it turned out to be.
struct MediaCheck {
  int64_t height = 0;
  int64_t width = 0;
  double seconds = 0;
  std::string problem;
};

MediaCheck check_image(std::span<const std::byte> bytes, const std::string& path, bool decode) {
  const ImageHeader header = read_image_header(bytes, path);
  if (decode) decode_image(bytes, path);
  return {.height = header.height, .width = header.width};
}

MediaCheck check_sound(std::span<const std::byte> bytes, const std::string& path, bool decode) {
  if (!decode) return {.seconds = std::max(0.0, read_audio_header(bytes, path).seconds())};
  const Audio audio = decode_audio(bytes, path, 0);
  return {.seconds = static_cast<double>(audio.samples.size()) / static_cast<double>(audio.sample_rate)};
}

MediaCheck check_file(const MediaFile& file, bool decode) {
  try {
    const MappedMedia media(file.path);
    const auto bytes = media.bytes();
    return file.is_image ? check_image(bytes, file.path, decode) : check_sound(bytes, file.path, decode);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kData) throw;
    return {.problem = error.what()};
  }
}

void check_files(const std::vector<MediaFile>& files, const InspectOptions& options,
                 const std::function<void(int64_t, int64_t)>& progress, DatasetSummary& summary) {
  const auto total = static_cast<int64_t>(files.size());
  const int64_t num_threads = options.num_threads > 0 ? options.num_threads : num_hardware_threads();
  for (int64_t start = 0; start < total; start += kFilesAtATime) {
    std::vector<MediaCheck> checks(static_cast<size_t>(std::min(kFilesAtATime, total - start)));
    parallel_for_each(static_cast<int64_t>(checks.size()), num_threads, [&](int64_t i) {
      checks[static_cast<size_t>(i)] = check_file(files[static_cast<size_t>(start + i)], options.decode);
    });
    for (size_t i = 0; i < checks.size(); ++i) {
      const MediaFile& file = files[static_cast<size_t>(start) + i];
      if (!checks[i].problem.empty()) {
        summary.report->add(file.source, checks[i].problem);
      } else if (file.is_image) {
        summary.image_height.add(static_cast<double>(checks[i].height));
        summary.image_width.add(static_cast<double>(checks[i].width));
      } else {
        summary.audio_seconds.add(checks[i].seconds);
      }
    }
    progress(start + static_cast<int64_t>(checks.size()), total);
  }
}

int64_t words_in(const std::string& text) {
  std::istringstream words(text);
  int64_t count = 0;
  for (std::string word; words >> word;) ++count;
  return count;
}

void tally(const Record& record, DatasetSummary& summary) {
  const auto split = record.tags.find("split");
  ++summary.splits[split == record.tags.end() ? "" : split->second];
  if (!record.label.empty()) ++summary.labels[record.label];
  for (const std::string& answer : record.answers) ++summary.answers[answer];
  summary.num_questions += !record.question.empty();
  summary.num_captions += static_cast<int64_t>(record.captions.size());
  summary.text_bytes += static_cast<int64_t>(record.text.size() + record.question.size());
  for (const std::string& caption : record.captions) {
    summary.caption_words.add(static_cast<double>(words_in(caption)));
    summary.text_bytes += static_cast<int64_t>(caption.size());
  }
}

Json counts_to_json(const std::map<std::string, int64_t>& counts) {
  Json out = Json::object();
  for (const auto& [name, count] : counts) out[name] = count;
  return out;
}

Json record_to_json(const Record& record) {
  Json out;
  out["source"] = record.source;
  out["id"] = record.id;
  const auto put = [&](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = value.substr(0, 200);
  };
  put("image", record.image_path);
  put("audio", record.audio_path);
  put("text", record.text);
  put("question", record.question);
  put("label", record.label);
  const auto put_list = [&](const char* key, const std::vector<std::string>& values) {
    if (values.empty()) return;
    Json list = Json::array();
    for (const std::string& value : values) list.push_back(value);
    out[key] = std::move(list);
  };
  put_list("captions", record.captions);
  put_list("answers", record.answers);
  return out;
}

/// "yes 120, no 118, … and 7 more", the most frequent first.
std::string describe_counts(const std::map<std::string, int64_t>& counts) {
  std::vector<std::pair<std::string, int64_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string out;
  for (size_t i = 0; i < std::min(sorted.size(), kShownNames); ++i)
    out += fmt::format("{}{} {}", i == 0 ? "" : ", ", sorted[i].first.empty() ? "(none)" : sorted[i].first,
                       sorted[i].second);
  if (sorted.size() > kShownNames) out += fmt::format(" and {} more", sorted.size() - kShownNames);
  return out;
}

}  // namespace

void Spread::add(double value) {
  least = count == 0 ? value : std::min(least, value);
  most = count == 0 ? value : std::max(most, value);
  sum += value;
  ++count;
}

Json Spread::to_json() const {
  if (count == 0) return {};
  Json out;
  out["min"] = least;
  out["mean"] = mean();
  out["max"] = most;
  return out;
}

Json DatasetSummary::to_json() const {
  Json out;
  out["path"] = path;
  out["format"] = format_name(format);
  out["records"] = num_records;
  out["splits"] = counts_to_json(splits);
  out["images"] = num_images;
  out["audio"] = num_audio;
  out["captions"] = num_captions;
  out["questions"] = num_questions;
  out["text_bytes"] = text_bytes;
  out["labels"] = counts_to_json(labels);
  out["answers"] = counts_to_json(answers);
  out["caption_words"] = caption_words.to_json();
  out["image_height"] = image_height.to_json();
  out["image_width"] = image_width.to_json();
  out["audio_seconds"] = audio_seconds.to_json();
  Json list = Json::array();
  for (const Record& record : samples) list.push_back(record_to_json(record));
  out["samples"] = std::move(list);
  const Json problems = report->to_json();
  out["num_problems"] = problems.at("count");
  out["problems"] = problems.at("problems");
  return out;
}

std::string DatasetSummary::to_text() const {
  std::string out = fmt::format("{} ({})\n  records    {}\n", path, format_name(format), num_records);
  const auto line = [&](const char* name, const std::string& value) {
    out += fmt::format("  {:<10} {}\n", name, value);
  };
  line("splits", describe_counts(splits));
  if (num_images > 0)
    line("images", fmt::format("{}, {:.0f}–{:.0f} pixels high, {:.0f}–{:.0f} wide", num_images,
                               image_height.least, image_height.most, image_width.least, image_width.most));
  if (num_audio > 0)
    line("audio", fmt::format("{} files, {:.2f}–{:.2f} seconds long, {:.2f} on average", num_audio,
                              audio_seconds.least, audio_seconds.most, audio_seconds.mean()));
  if (num_captions > 0)
    line("captions", fmt::format("{}, {:.0f}–{:.0f} words, {:.1f} on average", num_captions,
                                 caption_words.least, caption_words.most, caption_words.mean()));
  if (num_questions > 0) line("questions", std::to_string(num_questions));
  if (!answers.empty()) line("answers", describe_counts(answers));
  if (!labels.empty()) line("labels", describe_counts(labels));
  line("text", fmt::format("{:.1f} kB", static_cast<double>(text_bytes) / 1e3));
  for (const Record& record : samples) line("sample", record_to_json(record).dump());
  line("problems", std::to_string(report->count()));
  for (const DataProblem& problem : report->problems())
    out += fmt::format("    {}: {}\n", problem.source, problem.reason);
  return out;
}

DatasetSummary inspect_dataset(const DatasetConfig& config, const InspectOptions& options,
                               const std::function<void(int64_t, int64_t)>& progress) {
  DatasetConfig lenient = config;
  lenient.on_error = OnError::kSkip;
  const auto dataset = open_dataset(lenient);
  DatasetSummary summary{
      .path = dataset->path(), .format = dataset->format(), .num_records = dataset->size()};
  summary.report = dataset->shared_report();
  std::map<std::string, std::string> images, sounds;  // and the row that names each first
  for (const Record& record : dataset->records()) {
    tally(record, summary);
    if (!record.image_path.empty()) images.emplace(record.image_path, record.source);
    if (!record.audio_path.empty()) sounds.emplace(record.audio_path, record.source);
  }
  summary.num_images = static_cast<int64_t>(images.size());
  summary.num_audio = static_cast<int64_t>(sounds.size());
  for (const int64_t i : std::set<int64_t>{0, dataset->size() / 2, dataset->size() - 1})
    summary.samples.push_back(dataset->record(i));
  std::vector<MediaFile> files;
  for (const auto& [path, source] : images) files.push_back({path, source, true});
  for (const auto& [path, source] : sounds) files.push_back({path, source, false});
  check_files(files, options, progress, summary);
  return summary;
}

}  // namespace fathom
