// What stands in the place of a row's number where a token has none (counted_rows.h).
#pragma once

namespace fathom::kernels {

struct CountedSlots {
  enum : int { kNoRow = -1, kPadding = -2 };  ///< a token that is not computed; no token at all
};

}  // namespace fathom::kernels
