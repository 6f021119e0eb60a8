// A JSON object of long lists, read one item at a time: a whole tree takes tens of times the file's bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/json.h"

namespace fathom {

/// What to do with the items of the lists, by the lists' names.
using JsonItemReaders = std::map<std::string, std::function<void(int64_t index, const Json& item)>>;

/// Walks over `text`, an object, and hands each item of the lists in `readers` over. Returns the object's
/// other members as far as they are no lists and objects. Errors (kData): no JSON (with line and column), no
/// object, one of the lists is no list; what a reader throws passes.
Json read_json_lists(std::string_view text, const std::string& source, const JsonItemReaders& readers);

}  // namespace fathom
