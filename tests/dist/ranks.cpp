#include "dist/ranks.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "tensor/device.h"

namespace fathom::test {
namespace {

using Clock = std::chrono::steady_clock;

struct Process {
  pid_t id;
  int errors;
  bool running = true;
  RankOutcome outcome{};
};

/// A port that was free a moment ago: the rendezvous that foreign launchers give.
int64_t free_port() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  FATHOM_CHECK(bind(listener, generic, length) == 0 && getsockname(listener, generic, &length) == 0,
               "no free port");
  close(listener);
  return ntohs(address.sin_port);
}

Process start(int64_t rank, int64_t size, int64_t port, const std::string& body, const std::string& device) {
  const std::string program = own_path();
  int ends[2];
  FATHOM_CHECK(pipe2(ends, O_CLOEXEC) == 0, "no pipe");
  const pid_t tests = getpid(), id = fork();
  if (id == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != tests) _exit(127);  // they ended before
    dup2(ends[1], STDERR_FILENO);
    const auto set = [](const char* name, const std::string& value) { setenv(name, value.c_str(), 1); };
    set("RANK", std::to_string(rank));
    set("WORLD_SIZE", std::to_string(size));
    set("LOCAL_RANK", std::to_string(rank));
    set("LOCAL_WORLD_SIZE", std::to_string(size));
    set("MASTER_ADDR", "127.0.0.1");
    set("MASTER_PORT", std::to_string(port));
    set("OMP_NUM_THREADS", "1");
    set("FATHOM_TEST_BODY", body);
    set("FATHOM_TEST_DEVICE", device);
    execl(program.c_str(), program.c_str(), nullptr);
    _exit(127);
  }
  FATHOM_CHECK(id > 0, "no process for rank {}", rank);
  close(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return {.id = id, .errors = ends[0]};
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void read_errors(Process& process, Clock::time_point started) {
  char buffer[4096];
  for (ssize_t count; (count = read(process.errors, buffer, sizeof buffer)) > 0;) {
    if (process.outcome.errors.empty()) process.outcome.first_word_seconds = seconds_since(started);
    process.outcome.errors.append(buffer, static_cast<size_t>(count));
  }
}

void collect(Process& process, Clock::time_point started) {
  read_errors(process, started);
  int status = 0;
  if (waitpid(process.id, &status, WNOHANG) != process.id) return;
  read_errors(process, started);
  process.running = false;
  process.outcome.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  process.outcome.seconds = seconds_since(started);
}

}  // namespace

std::string own_path() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

std::vector<RankOutcome> run_ranks(int64_t size, const std::string& body, const RankOptions& options) {
  find_body(body);
  const auto started = Clock::now();
  const int64_t port = free_port();
  std::vector<Process> processes;
  for (int64_t rank = 0; rank < size; ++rank)
    processes.push_back(start(rank, size, port, body, options.device));
  const auto is_awaited = [&](size_t rank) {
    return std::count(options.not_awaited.begin(), options.not_awaited.end(), static_cast<int64_t>(rank)) ==
           0;
  };
  const auto any_running = [&](bool only_awaited) {
    for (size_t rank = 0; rank < processes.size(); ++rank) {
      if (processes[rank].running && (!only_awaited || is_awaited(rank))) return true;
    }
    return false;
  };
  while (any_running(false)) {
    for (Process& process : processes) {
      if (process.running) collect(process, started);
    }
    const bool is_over = seconds_since(started) > options.limit_seconds;
    if (is_over || !any_running(true)) {
      for (const Process& process : processes) {
        if (process.running) kill(process.id, SIGKILL);
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::vector<RankOutcome> outcomes;
  for (Process& process : processes) {
    close(process.errors);
    outcomes.push_back(process.outcome);
  }
  return outcomes;
}

at::Device rank_device() {
  const char* name = std::getenv("FATHOM_TEST_DEVICE");
  return select_device(name ? name : "cpu", RankEnvironment::from_environment().local_rank);
}

void expect_success(const std::vector<RankOutcome>& outcomes) {
  for (size_t rank = 0; rank < outcomes.size(); ++rank) {
    EXPECT_EQ(outcomes[rank].status, 0) << "rank " << rank << ": " << outcomes[rank].errors;
  }
}

}  // namespace fathom::test
