// Work that is killed before each of its system calls in turn: what a SIGKILL at the worst moment leaves.
#pragma once

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <optional>

namespace fathom {

/// Runs `work` in a child process that is killed when it is about to make system call number `call` (from 0).
/// True: killed there; false: it came to its end before; nothing where processes may not be traced.
inline std::optional<bool> kill_at_call(int64_t call, const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(42);
    ::raise(SIGSTOP);
    try {
      work();
    } catch (...) {
      ::_exit(43);
    }
    ::_exit(0);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return std::nullopt;
  // Each system call stops the child twice: before and after.
  for (int64_t stops = 0; stops <= 2 * call; ++stops) {
    ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status)) return WEXITSTATUS(status) == 0 ? std::optional(false) : std::nullopt;
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return true;
}

/// Kills `work` before its first, second, … system call until it comes to its end; `prepare` goes before each
/// run, `judge` after each. Returns the number of system calls, or nothing where processes may not be traced.
inline std::optional<int64_t> kill_at_every_call(const std::function<void()>& prepare,
                                                 const std::function<void()>& work,
                                                 const std::function<void()>& judge) {
  for (int64_t call = 0;; ++call) {
    prepare();
    const std::optional<bool> killed = kill_at_call(call, work);
    if (!killed) return std::nullopt;
    judge();
    if (!*killed) return call;
  }
}

}  // namespace fathom
