#include "evaluate/per_sample.h"

#include <set>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "data/readers/json_line.h"
#include "data/readers/text_lines.h"

namespace fathom {
namespace {

std::string cluster_of(const Record& record) {
  return record.id.empty() ? record.source : record.id;
}

bool is_measure(const std::string& name) {
  return is_ranked(name) || is_answer_figure(name) || name == "answers" || name == "classification";
}

Json to_json(const SampleResult& result) {
  Json row = Json::Object{{"measure", result.measure},
                          {"sample", result.sample},
                          {"query", result.query},
                          {"cluster", result.cluster}};
  for (const std::string& group : result.groups) row["groups"].push_back(group);
  if (!result.said.empty()) row["said"] = result.said;
  if (is_ranked(result.measure))
    row["rank"] = result.rank;
  else
    row["right"] = result.rank == 1;
  return row;
}

/// Member `key` of a row, of the kind that `is` tells.
const Json& member(const Json& row, const char* key, bool (Json::*is)() const, const char* kind) {
  const Json* value = row.find(key);
  if (value == nullptr) fail(ErrorKind::kData, "no \"{}\"", key);
  if (!(value->*is)()) fail(ErrorKind::kData, "\"{}\": expected {}, got {}", key, kind, value->kind_name());
  return *value;
}

const std::string& text(const Json& row, const char* key) {
  return member(row, key, &Json::is_string, "a string").as_string();
}

int64_t number(const Json& row, const char* key, int64_t low) {
  const int64_t value = member(row, key, &Json::is_int, "an integer").as_int();
  if (value < low) fail(ErrorKind::kData, "\"{}\": expected at least {}, got {}", key, low, value);
  return value;
}

SampleResult from_json(const Json& row) {
  if (!row.is_object()) fail(ErrorKind::kData, "expected an object, got {}", row.kind_name());
  SampleResult result{.measure = text(row, "measure"),
                      .sample = number(row, "sample", 0),
                      .query = text(row, "query"),
                      .cluster = text(row, "cluster")};
  if (!is_measure(result.measure)) fail(ErrorKind::kData, "unknown measure \"{}\"", result.measure);
  if (row.find("groups"))
    for (const Json& group : member(row, "groups", &Json::is_array, "a list").as_array()) {
      if (!group.is_string())
        fail(ErrorKind::kData, "\"groups\": expected strings, got {}", group.kind_name());
      result.groups.push_back(group.as_string());
    }
  if (row.find("said")) result.said = text(row, "said");
  result.rank = is_ranked(result.measure) ? number(row, "rank", 1)
                                          : member(row, "right", &Json::is_bool, "true or false").as_bool();
  return result;
}

/// One question's result, but for what was said.
SampleResult asked_result(const AnswerData& data, int64_t place) {
  const Record& record = data.source->dataset().record(place);
  SampleResult result{.measure = "answers",
                      .sample = place,
                      .query = is_captioning(record) ? record.captions.front() : record.question,
                      .cluster = record.image_path.empty() ? cluster_of(record) : record.image_path};
  for (const std::string& tag : data.group_tags)
    if (const auto value = record.tags.find(tag); value != record.tags.end())
      result.groups.push_back(tag + "=" + value->second);
  return result;
}

}  // namespace

bool is_ranked(const std::string& measure) {
  return std::set<std::string>{"t2i", "i2t", "a2i", "i2a", "a2t", "t2a"}.contains(measure);
}

bool is_answer_figure(const std::string& measure) {
  return measure == "image_only_accuracy" || measure == "caption_only_accuracy" || measure == "agreement";
}

std::vector<SampleResult> sample_results(const AnswerReport& report, const AnswerData& data) {
  std::vector<SampleResult> results;
  const auto add = [&](const char* measure, size_t i, const std::string& said, bool right) {
    SampleResult& result = results.emplace_back(asked_result(data, static_cast<int64_t>(i)));
    result.measure = measure;
    result.said = said;
    result.rank = right;
  };
  const auto add_all = [&](const char* measure, const std::vector<std::string>& answers) {
    for (size_t i = 0; i < answers.size(); ++i)
      add(measure, i, answers[i],
          is_right(data.source->dataset().record(static_cast<int64_t>(i)), answers[i]));
  };
  add_all("answers", report.answers);
  add_all("image_only_accuracy", report.image_answers);
  add_all("caption_only_accuracy", report.caption_answers);
  for (size_t i = 0; i < report.image_answers.size(); ++i)
    add("agreement", i, "", report.image_answers[i] == report.caption_answers[i]);
  return results;
}

std::vector<SampleResult> sample_results(const MeasuredData& measured, const RetrievalData& data) {
  // Rows may lack a picture: places among pictures, texts and rows differ.
  std::unordered_map<int64_t, size_t> image_of_record;
  for (size_t image = 0; image < data.record_of_image.size(); ++image)
    image_of_record[data.record_of_image[image]] = image;
  std::vector<SampleResult> results;
  const auto add = [&](const char* measure, size_t place, int64_t record, std::string query, int64_t rank) {
    if (rank == 0) return;  // no query
    SampleResult result{.measure = measure,
                        .sample = static_cast<int64_t>(place),
                        .query = std::move(query),
                        .cluster = cluster_of(data.dataset->record(record)),
                        .rank = rank};
    if (const auto image = image_of_record.find(record);
        image != image_of_record.end() && !data.group_of_image.empty())
      result.groups.push_back(data.group_of_image[image->second]);
    results.push_back(std::move(result));
  };
  for (size_t c = 0; c < data.captions_with_image.size(); ++c) {
    const int64_t text = data.captions_with_image[c];
    add("t2i", c, data.texts->record_of(text), data.texts->sentence(text), measured.ranks.t2i[c]);
  }
  for (size_t i = 0; i < data.record_of_image.size(); ++i) {
    const int64_t record = data.record_of_image[i];
    add("i2t", i, record, cluster_of(data.dataset->record(record)), measured.ranks.i2t[i]);
  }
  for (const auto& [direction, found] : measured.sound_ranks)
    for (size_t q = 0; q < found.place.size(); ++q) {
      const int64_t place = found.place[q];
      const bool by_text = direction.front() == 't';
      const std::vector<int64_t>& records =
          direction.front() == 'a' ? data.record_of_sound : data.record_of_image;
      const int64_t record = by_text ? data.texts->record_of(place) : records[static_cast<size_t>(place)];
      add(direction.c_str(), static_cast<size_t>(place), record,
          by_text ? data.texts->sentence(place) : cluster_of(data.dataset->record(record)), found.rank[q]);
    }
  return results;
}

std::vector<SampleResult> sample_results(const ClassificationReport& report, const Dataset& dataset) {
  std::vector<SampleResult> results;
  for (size_t i = 0; i < report.right.size(); ++i) {
    const auto place = static_cast<int64_t>(i);
    const Record& record = dataset.record(place);
    results.push_back({.measure = "classification",
                       .sample = place,
                       .query = cluster_of(record),
                       .cluster = cluster_of(record),
                       .rank = report.right[i]});
  }
  return results;
}

void write_sample_results(const std::string& path, const std::vector<SampleResult>& results) {
  std::string rows;
  for (const SampleResult& result : results) rows += to_json(result).dump() + "\n";
  write_file_atomically(path, rows);
}

std::vector<SampleResult> read_sample_results(const std::string& path) {
  const std::string content = read_file(path);
  LineReader lines(content);
  std::vector<SampleResult> results;
  while (const auto line = lines.next()) {
    if (line->text.empty()) continue;
    try {
      results.push_back(from_json(parse_json_line(*line)));
    } catch (const Error& error) {
      fail(ErrorKind::kData, "{}:{}: {} (not of `fathom eval --per-sample`?)", path, line->number,
           error.what());
    }
  }
  if (results.empty())
    fail(ErrorKind::kData, "{}: no results (`fathom eval --per-sample` writes them)", path);
  return results;
}

}  // namespace fathom
