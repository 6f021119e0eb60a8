#include "base/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>

namespace fathom::log_test {
namespace {

/// What `work` writes to standard error when that is a terminal; empty where there are none to be had.
std::string seen_on_a_terminal(const std::function<void()>& work) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0 || ::grantpt(terminal) != 0 || ::unlockpt(terminal) != 0) return "";
  const int screen = ::open(::ptsname(terminal), O_RDWR | O_NOCTTY);
  if (screen < 0) return "";
  const int before = ::dup(STDERR_FILENO);
  ::dup2(screen, STDERR_FILENO);
  work();
  std::fflush(stderr);
  ::dup2(before, STDERR_FILENO);
  for (const int fd : {before, screen}) ::close(fd);
  std::string seen;  // comes in pieces, until the last writer has gone
  char piece[4096];
  for (ssize_t count; (count = ::read(terminal, piece, sizeof piece)) > 0;)
    seen.append(piece, static_cast<size_t>(count));
  ::close(terminal);
  return seen;
}

TEST(Log, TakesThePlaceOfABarOnATerminal) {
  const std::string seen = seen_on_a_terminal([] { log::info("what {}", "happened"); });
  if (seen.empty()) GTEST_SKIP() << "no terminal can be made here";
  EXPECT_EQ(seen.find("\r\033[2K"), 0u);
  EXPECT_NE(seen.find("what happened"), std::string::npos);
  EXPECT_EQ(seen_on_a_terminal([] {
              log::set_level(log::Level::kSilent);
              log::info("nothing");
              std::fputs("x", stderr);
              log::set_level(log::Level::kInfo);
            }),
            "x");
}

}  // namespace
}  // namespace fathom::log_test
