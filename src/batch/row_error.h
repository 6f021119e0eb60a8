// Errors of pictures and sounds name the row that asks for them, too.
#pragma once

#include <string_view>

#include "base/error.h"
#include "data/sample.h"

namespace fathom {

/// What `read` returns. An error of kind kData also says where the record was written.
template <typename Read>
auto in_row_of(const Record& record, const Read& read) {
  try {
    return read();
  } catch (const Error& error) {
    const std::string_view message = error.what();
    if (error.kind() != ErrorKind::kData || message.find(record.source) != message.npos) throw;
    fail(ErrorKind::kData, "{} (of row {})", message, record.source);
  }
}

}  // namespace fathom
