// A peer program beside ours in the same run: a child process that does one round for each line it is sent.
#pragma once

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>

#include "base/error.h"

namespace fathom::bench {

/// Runs a shell command and talks to it line by line. The child sees its input end, and ends, when this is
/// destroyed.
class PeerProcess {
 public:
  /// Waits for the line "ready". Errors (kUsage): the command does not get that far.
  explicit PeerProcess(const std::string& command) : command_(command) {
    std::array<int, 2> ends;
    FATHOM_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0, "[peer] no socket");
    child_ = fork();
    FATHOM_CHECK(child_ >= 0, "[peer] no process");
    if (child_ == 0) {
      dup2(ends[1], STDIN_FILENO);
      dup2(ends[1], STDOUT_FILENO);
      execl("/bin/sh", "sh", "-c", ("exec " + command).c_str(), nullptr);
      _exit(127);
    }
    close(ends[1]);
    input_ = fdopen(ends[0], "r");
    output_ = fdopen(dup(ends[0]), "w");
    if (read_line() != "ready") fail(ErrorKind::kUsage, "the peer did not start: {}", command);
  }

  ~PeerProcess() {
    shutdown(fileno(output_), SHUT_RDWR);
    std::fclose(output_);
    std::fclose(input_);
    waitpid(child_, nullptr, 0);
  }
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  /// Sends a line and waits for the answer. Errors (kUsage): the peer has ended.
  std::string ask(const std::string& line) {
    std::fprintf(output_, "%s\n", line.c_str());
    std::fflush(output_);
    return read_line();
  }

 private:
  std::string read_line() {
    std::string line;
    int c = std::fgetc(input_);
    for (; c != EOF && c != '\n'; c = std::fgetc(input_)) line += static_cast<char>(c);
    if (c == EOF) fail(ErrorKind::kUsage, "the peer ended: {}", command_);
    return line;
  }

  std::string command_;
  pid_t child_ = -1;
  std::FILE* input_ = nullptr;
  std::FILE* output_ = nullptr;
};

}  // namespace fathom::bench
