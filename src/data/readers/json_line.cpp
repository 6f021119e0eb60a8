#include "data/readers/json_line.h"

#include "base/error.h"
#include "base/utf8.h"

namespace fathom {
namespace {

constexpr size_t kMaxLineBytes = size_t{64} << 20;

}  // namespace

Json parse_json_line(const Line& line) {
  if (line.text.size() > kMaxLineBytes)
    fail(ErrorKind::kData, "a line of {} bytes, at most {} are accepted", line.text.size(), kMaxLineBytes);
  if (const auto offset = find_invalid_utf8(line.text))
    fail(ErrorKind::kData, "byte {}: not valid UTF-8", *offset + 1);
  try {
    return parse_json(line.text, "");
  } catch (const Error& error) {
    std::string reason = error.what();
    if (reason.starts_with(":1:")) reason = "column " + reason.substr(3);
    if (reason.starts_with(": ")) reason = reason.substr(2);
    if (!line.ended) reason += " (the last line has no line end: is the file cut off?)";
    fail(ErrorKind::kData, "{}", reason);
  }
}

}  // namespace fathom
