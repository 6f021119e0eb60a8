// One line of a JSON Lines file.
#pragma once

#include "base/json.h"
#include "data/readers/text_lines.h"

namespace fathom {

/// Errors (kData): over 64 MiB, not UTF-8, not JSON; the message begins with the byte or column, since the
/// caller knows file and line, and says so of a last line that is cut off.
Json parse_json_line(const Line& line);

}  // namespace fathom
