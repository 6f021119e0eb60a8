// How much memory some work takes, measured in a process of its own.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <functional>

namespace fathom {

/// Bytes by which `work` raised the resident memory at its peak; -1 if it threw.
inline int64_t peak_memory_of(const std::function<void()>& work) {
  int pipe[2];
  if (::pipe(pipe) != 0) return -1;
  const pid_t child = ::fork();
  if (child == 0) {
    const auto peak_bytes = [] {
      rusage usage{};
      ::getrusage(RUSAGE_SELF, &usage);
      return int64_t{1024} * usage.ru_maxrss;
    };
    int64_t grown = -1;
    try {
      const int64_t before = peak_bytes();
      work();
      grown = peak_bytes() - before;
    } catch (...) {
    }
    [[maybe_unused]] const ssize_t written = ::write(pipe[1], &grown, sizeof grown);
    ::_exit(0);
  }
  ::close(pipe[1]);
  int64_t grown = -1;
  if (::read(pipe[0], &grown, sizeof grown) != sizeof grown) grown = -1;
  ::close(pipe[0]);
  ::waitpid(child, nullptr, 0);
  return grown;
}

}  // namespace fathom
