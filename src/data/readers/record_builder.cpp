#include "data/readers/record_builder.h"

#include <filesystem>
#include <utility>

#include "base/error.h"

namespace fathom {
namespace {

std::string scalar_text(const std::string& key, const Json& value) {
  if (value.is_string()) return value.as_string();
  if (value.is_number() || value.is_bool()) return value.dump();
  fail(ErrorKind::kData, "\"{}\": expected a string, got {}", key, value.kind_name());
}

std::string plain_text(const std::string& key, const Json& value) {
  if (value.is_string()) return value.as_string();
  fail(ErrorKind::kData, "\"{}\": expected a string, got {}", key, value.kind_name());
}

/// A string, or a list of strings.
void append_texts(std::vector<std::string>& out, const std::string& key, const Json& value) {
  if (!value.is_array()) {
    out.push_back(scalar_text(key, value));
    return;
  }
  for (const Json& item : value.as_array()) out.push_back(scalar_text(key, item));
}

}  // namespace

RecordBuilder::RecordBuilder(std::string base_folder, const std::vector<std::string>& renames)
    : base_folder_(std::move(base_folder)) {
  for (const std::string& rename : renames) {
    const size_t equals = rename.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == rename.size())
      fail(ErrorKind::kConfig, "columns: \"{}\" is not of the form \"theirs=ours\"", rename);
    renames_[rename.substr(0, equals)] = rename.substr(equals + 1);
  }
}

std::string RecordBuilder::absolute(const std::string& path) const {
  return (std::filesystem::path(base_folder_) / path).lexically_normal().string();
}

void RecordBuilder::add(Record& record, const std::string& written_key, const Json& value) const {
  if (value.is_null() || (value.is_string() && value.as_string().empty())) return;
  const auto renamed = renames_.find(written_key);
  const std::string& key = renamed == renames_.end() ? written_key : renamed->second;
  if (key == "image") {
    const std::string path = plain_text(key, value);
    record.image_path = absolute(path);
    if (record.id.empty()) record.id = path;
  } else if (key == "audio") {
    const std::string path = plain_text(key, value);
    record.audio_path = absolute(path);
    if (record.id.empty()) record.id = path;
  } else if (key == "caption" || key == "captions") {
    append_texts(record.captions, key, value);
  } else if (key == "answer" || key == "answers") {
    append_texts(record.answers, key, value);
  } else if (key == "text") {
    record.text = plain_text(key, value);
  } else if (key == "question") {
    record.question = plain_text(key, value);
  } else if (key == "label") {
    record.label = scalar_text(key, value);
  } else if (key == "id") {
    record.id = scalar_text(key, value);
  } else {
    record.tags[key] = value.is_string() ? value.as_string() : value.dump();
  }
}

std::string RecordBuilder::finish(Record& record, const std::string& source) const {
  record.source = source;
  if (record.id.empty()) record.id = source.substr(source.rfind('/') + 1);
  if (record.image_path.empty() && record.audio_path.empty() && record.text.empty() &&
      record.captions.empty() && record.question.empty())
    return "none of the keys image, audio, text, captions, question has a value";
  return "";
}

}  // namespace fathom
