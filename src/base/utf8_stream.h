// Bytes that arrive in pieces, as text that is whole at every moment.
#pragma once

#include <string>
#include <string_view>

namespace fathom {

/// Holds back an unfinished UTF-8 sequence until its other bytes come. Bytes that cannot be UTF-8 become
/// U+FFFD, one for each longest broken part (Unicode 15, section 3.9).
class Utf8Stream {
 public:
  /// What can be shown now.
  std::string push(std::string_view bytes);
  /// The end: an unfinished sequence becomes U+FFFD.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace fathom
