#include "data/readers/separated_values.h"

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "data/readers/reading.h"
#include "data/readers/record_builder.h"
#include "data/readers/text_lines.h"

namespace fathom {

SeparatedReader::SeparatedReader(std::string_view text, char separator)
    : text_(skip_byte_order_mark(text)), separator_(separator) {}

bool SeparatedReader::at_line_end() const {
  return place_ == text_.size() || text_[place_] == '\n' || text_.substr(place_).starts_with("\r\n");
}

void SeparatedReader::skip_line_end() {
  if (place_ == text_.size()) return;
  place_ += text_[place_] == '\r' ? 2 : 1;
  ++line_;
}

void SeparatedReader::skip_line() {
  while (!at_line_end()) ++place_;
  skip_line_end();
}

void SeparatedReader::read_plain(std::string& field) {
  const size_t start = place_;
  while (!at_line_end() && text_[place_] != separator_) ++place_;
  field = text_.substr(start, place_ - start);
}

void SeparatedReader::read_quoted(SeparatedRow& row, std::string& field) {
  ++place_;
  while (place_ < text_.size()) {
    const char c = text_[place_++];
    const bool doubled = c == '"' && place_ < text_.size() && text_[place_] == '"';
    if (c == '"' && !doubled) {
      if (!at_line_end() && text_[place_] != separator_) row.error = "text after a closing quote";
      return;
    }
    if (doubled) ++place_;
    if (c == '\n') ++line_;
    field += c;
  }
  row.error = "a quote that is never closed: the rest of the file was not read";
}

std::optional<SeparatedRow> SeparatedReader::next() {
  while (place_ < text_.size() && at_line_end()) skip_line_end();
  if (place_ == text_.size()) return std::nullopt;
  SeparatedRow row{.line = line_};
  while (true) {
    std::string field;
    if (place_ < text_.size() && text_[place_] == '"') {
      read_quoted(row, field);
    } else {
      read_plain(field);
    }
    row.fields.push_back(std::move(field));
    if (!row.error.empty()) {
      skip_line();
      return row;
    }
    if (at_line_end()) {
      skip_line_end();
      return row;
    }
    ++place_;
  }
}

namespace {

void read_row(Reading& reading, const RecordBuilder& builder, const std::vector<std::string>& header,
              const SeparatedRow& row, const std::string& source) {
  if (!row.error.empty()) fail(ErrorKind::kData, "{}", row.error);
  if (row.fields.size() != header.size())
    fail(ErrorKind::kData, "{} fields, the header has {}", row.fields.size(), header.size());
  Record record;
  for (size_t i = 0; i < header.size(); ++i) {
    if (const auto offset = find_invalid_utf8(row.fields[i]))
      fail(ErrorKind::kData, "column \"{}\", byte {}: not valid UTF-8", header[i], *offset + 1);
    builder.add(record, header[i], row.fields[i]);
  }
  if (const std::string reason = builder.finish(record, source); !reason.empty())
    fail(ErrorKind::kData, "{}", reason);
  const auto split = record.tags.extract("split");
  reading.accept(std::move(record), split ? split.mapped() : "");
}

/// Without any column that we know, every row would be refused, and not say why.
void require_known_column(const RecordBuilder& builder, const std::vector<std::string>& header,
                          const std::string& source) {
  Record filled;
  for (const std::string& name : header) builder.add(filled, name, "x");
  if (builder.finish(filled, source).empty()) return;
  constexpr size_t kMostShown = 200;
  std::string names = fmt::format("\"{}\"", fmt::join(header, "\", \""));
  if (names.size() > kMostShown) names = names.substr(0, kMostShown) + "…";
  fail(ErrorKind::kData,
       "{}: none of the columns is image, audio, text, caption or question; there are {} (data.columns "
       "renames "
       "them)",
       source, names);
}

}  // namespace

void read_separated_values(Reading& reading, char separator) {
  const MappedFile file(reading.path());
  const RecordBuilder builder(std::filesystem::path(reading.path()).parent_path().string(),
                              reading.config().columns);
  SeparatedReader rows(file.text(), separator);
  const auto header = rows.next();
  if (!header) fail(ErrorKind::kData, "{}: empty; expected a header row", reading.path());
  if (!header->error.empty())
    fail(ErrorKind::kData, "{}:{}: {}", reading.path(), header->line, header->error);
  require_known_column(builder, header->fields, fmt::format("{}:{}", reading.path(), header->line));
  while (const auto row = rows.next()) {
    if (reading.full()) return;
    const std::string source = fmt::format("{}:{}", reading.path(), row->line);
    reading.attempt(source, [&] { read_row(reading, builder, header->fields, *row, source); });
  }
}

}  // namespace fathom
