// libjpeg and libpng report errors by longjmp; this is the one place that meets it.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <string>

#include "base/error.h"

namespace fathom {

/// Turns a codec's longjmp into an `Error`. REQUIRES of calls: no object with a destructor is created inside,
/// since a jump would pass over it.
class LongjmpGuard {
 public:
  /// Runs `call`; a `jump` from within becomes Error(kData, "source: message").
  template <typename Call>
  void run(const std::string& source, const Call& call) {
    if (setjmp(buffer_) != 0) fail(ErrorKind::kData, "{}: {}", source, message_);
    call();
  }

  /// For the codec's error callback.
  [[noreturn]] void jump() { std::longjmp(buffer_, 1); }
  [[noreturn]] void jump(const char* message) {
    std::snprintf(message_, kMessageBytes, "%s", message);
    jump();
  }

  /// At least JMSG_LENGTH_MAX bytes, filled before `jump()`.
  char* message() { return message_; }

 private:
  static constexpr size_t kMessageBytes = 256;
  std::jmp_buf buffer_;
  char message_[kMessageBytes] = "";
};

}  // namespace fathom
