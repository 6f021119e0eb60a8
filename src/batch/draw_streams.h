// What a sample draws, whatever source it comes from: one stream for each use, so that switching one off
// leaves the others as they were. Sources with more draws number them from 4 on.
#pragma once

#include <cstdint>

namespace fathom {

inline constexpr uint64_t kViewStream = 1;
inline constexpr uint64_t kCaptionStream = 2;
inline constexpr uint64_t kTokenMaskStream = 3;

}  // namespace fathom
