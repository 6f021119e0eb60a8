// Plain text: documents between lines that read <|endoftext|>.
#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "data/readers/reading.h"
#include "data/readers/text_lines.h"
#include "data/readers/token_file.h"

namespace fathom {
namespace {

void accept_document(Reading& reading, const char* begin, const char* end, int64_t line) {
  const std::string_view text(begin, static_cast<size_t>(end - begin));
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return;
  const std::string source = fmt::format("{}:{}", reading.path(), line);
  reading.attempt(source, [&] {
    if (const auto offset = find_invalid_utf8(text))
      fail(ErrorKind::kData, "byte {} of the document: not valid UTF-8", *offset + 1);
    Record record;
    record.text = text;
    record.source = source;
    record.id = source.substr(source.rfind('/') + 1);
    reading.accept(std::move(record), "");
  });
}

}  // namespace

void read_text_documents(Reading& reading) {
  const MappedFile file(reading.path());
  const std::string_view text = skip_byte_order_mark(file.text());
  LineReader lines(text);
  const char* begin = text.data();
  int64_t begin_line = 1;
  while (const auto line = lines.next()) {
    if (reading.full()) return;
    if (line->text != TokenFile::kSeparator) continue;
    accept_document(reading, begin, line->text.data(), begin_line);
    begin = line->text.data() + line->text.size();
    while (begin < text.data() + text.size() && *begin != '\n') ++begin;
    if (begin < text.data() + text.size()) ++begin;
    begin_line = line->number + 1;
  }
  accept_document(reading, begin, text.data() + text.size(), begin_line);
}

}  // namespace fathom
