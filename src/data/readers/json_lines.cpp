// JSON Lines: one object a line, blank lines between them allowed.
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "data/readers/json_line.h"
#include "data/readers/reading.h"
#include "data/readers/record_builder.h"
#include "data/readers/text_lines.h"

namespace fathom {
namespace {

void read_line(Reading& reading, const RecordBuilder& builder, const Line& line, const std::string& source) {
  const Json row = parse_json_line(line);
  if (!row.is_object()) fail(ErrorKind::kData, "expected an object, got {}", row.kind_name());
  Record record;
  for (const auto& [key, value] : row.as_object()) builder.add(record, key, value);
  if (const std::string reason = builder.finish(record, source); !reason.empty())
    fail(ErrorKind::kData, "{}", reason);
  const auto split = record.tags.extract("split");
  reading.accept(std::move(record), split ? split.mapped() : "");
}

}  // namespace

void read_json_lines(Reading& reading) {
  const MappedFile file(reading.path());
  const RecordBuilder builder(std::filesystem::path(reading.path()).parent_path().string(),
                              reading.config().columns);
  LineReader lines(file.text());
  while (const auto line = lines.next()) {
    if (line->text.find_first_not_of(" \t") == std::string_view::npos) continue;
    if (reading.full()) return;
    const std::string source = fmt::format("{}:{}", reading.path(), line->number);
    reading.attempt(source, [&] { read_line(reading, builder, *line, source); });
  }
}

}  // namespace fathom
