#include "distributed/launcher.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>

#include "base/descriptor.h"
#include "base/error.h"
#include "base/log.h"

namespace fathom {
namespace {

using Clock = std::chrono::steady_clock;

/// One stream of a rank, passed on line by line under the rank's name.
struct Output {
  Descriptor source;
  int target;
  std::string prefix;
  std::string pending;
};

/// The variables that a process is started with.
class Environment {
 public:
  static Environment inherited() {
    Environment result;
    for (char** entry = environ; *entry; ++entry) result.entries_.emplace_back(*entry);
    return result;
  }
  bool has(const std::string& name) const {
    return std::any_of(entries_.begin(), entries_.end(),
                       [&](const auto& entry) { return entry.starts_with(name + "="); });
  }
  void erase(const std::string& name) {
    std::erase_if(entries_, [&](const auto& entry) { return entry.starts_with(name + "="); });
  }
  void set(const std::string& name, const std::string& value) {
    erase(name);
    entries_.push_back(name + "=" + value);
  }
  const std::vector<std::string>& entries() const { return entries_; }

 private:
  std::vector<std::string> entries_;
};

/// A null-terminated list, as exec wants it; valid as long as `strings`.
std::vector<char*> pointers_to(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& text : strings) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

/// What the child needs between fork and exec; file descriptors are -1 where it keeps ours.
struct Child {
  int64_t number;
  int output;
  int errors;
  char* const* arguments;
  char* const* environment;
};

/// How a rank failed.
struct Blame {
  int64_t rank;
  int code;
  std::string how;
};

/// Ranks hear of another's failure by their heartbeat and then end before it: what it gets to end by itself.
constexpr std::chrono::milliseconds kTimeToSettle{1500};
constexpr std::chrono::milliseconds kLeastTimeToStop{1000};

struct Rank {
  int64_t number;
  pid_t process = -1;
  bool running = false;
};

int64_t usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return std::max<int64_t>(1, std::thread::hardware_concurrency());
}

/// A listening socket on a port that the system chose. Rank 0 inherits it, so nobody can take the port in
/// between.
Descriptor listen_anywhere(int64_t& port) {
  Descriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (listener.get() < 0 || ::bind(listener.get(), generic, length) != 0 ||
      ::listen(listener.get(), 1024) != 0 || ::getsockname(listener.get(), generic, &length) != 0) {
    fail(ErrorKind::kInternal, "launch: no free port on the loopback interface ({})", std::strerror(errno));
  }
  port = ntohs(address.sin_port);
  return listener;
}

void write_all(int target, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(target, text.data(), text.size());
    if (count < 0 && errno != EINTR) return;
    if (count > 0) text.remove_prefix(static_cast<size_t>(count));
  }
}

void pass_on(Output& output, bool is_end) {
  size_t start = 0;
  for (size_t end; (end = output.pending.find('\n', start)) != std::string::npos; start = end + 1) {
    write_all(output.target, output.prefix + output.pending.substr(start, end + 1 - start));
  }
  output.pending.erase(0, start);
  if (is_end && !output.pending.empty()) write_all(output.target, output.prefix + output.pending + "\n");
}

/// The ranks of one launch, from start to last exit.
class Launch {
 public:
  explicit Launch(const LaunchOptions& options) : options_(options) {}
  ~Launch() {
    for (const Rank& rank : ranks_) {
      if (rank.running) ::kill(-rank.process, SIGKILL);
    }
    if (signals_.get() >= 0) ::sigprocmask(SIG_SETMASK, &previous_mask_, nullptr);
  }

  int run() {
    watch_signals();
    store_ = listen_anywhere(port_);
    for (int64_t i = 0; i < options_.num_ranks; ++i) start(i);
    store_.reset();
    while (num_running() > 0) step();
    if (suspect_) blame(*suspect_);
    drain_outputs();
    return status_;
  }

 private:
  void watch_signals();
  void start(int64_t number);
  [[noreturn]] void become(const Child& child) const;
  Environment environment_of(int64_t number) const;
  Descriptor add_output(int64_t number, int target);
  void step();
  void read_signals();
  void reap();
  void judge(const Rank& rank, int status);
  void blame(Blame culprit);
  void signal_all(int signal);
  bool read_output(Output& output);
  void drain_outputs();
  int64_t num_running() const {
    return std::count_if(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.running; });
  }

  const LaunchOptions& options_;
  sigset_t previous_mask_{};
  Descriptor signals_;
  Descriptor store_;
  int64_t port_ = 0;
  std::vector<Rank> ranks_;
  std::vector<Output> outputs_;
  std::optional<Clock::time_point> kill_at_;
  std::optional<Blame> suspect_;  ///< failed, maybe because of another rank
  Clock::time_point failed_at_;
  int status_ = 0;
};

void Launch::watch_signals() {
  sigset_t mask;
  sigemptyset(&mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&mask, signal);
  ::sigprocmask(SIG_BLOCK, &mask, &previous_mask_);
  signals_ = Descriptor(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  if (signals_.get() < 0) fail(ErrorKind::kInternal, "launch: signalfd failed ({})", std::strerror(errno));
}

Environment Launch::environment_of(int64_t number) const {
  Environment environment = Environment::inherited();
  environment.set("RANK", std::to_string(number));
  environment.set("WORLD_SIZE", std::to_string(options_.num_ranks));
  environment.set("LOCAL_RANK", std::to_string(number));
  environment.set("LOCAL_WORLD_SIZE", std::to_string(options_.num_ranks));
  environment.set("MASTER_ADDR", "127.0.0.1");
  environment.set("MASTER_PORT", std::to_string(port_));
  // A launch inside another launcher's job is a job of its own.
  for (const char* name : {"TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT"})
    environment.erase(name);
  if (number == 0) environment.set("FATHOM_STORE_FD", std::to_string(store_.get()));
  if (options_.cpus_per_rank > 0 || !environment.has("OMP_NUM_THREADS")) {
    const int64_t even_share = std::max<int64_t>(1, usable_cpus() / options_.num_ranks);
    environment.set("OMP_NUM_THREADS",
                    std::to_string(options_.cpus_per_rank > 0 ? options_.cpus_per_rank : even_share));
  }
  return environment;
}

/// The child's side of the fork: system calls only, nothing that allocates.
void Launch::become(const Child& child) const {
  ::setpgid(0, 0);  // so that a terminal's Ctrl-C reaches the ranks once, through us
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  ::sigprocmask(SIG_SETMASK, &previous_mask_, nullptr);
  if (child.number == 0) ::fcntl(store_.get(), F_SETFD, 0);
  if (child.output >= 0) ::dup2(child.output, STDOUT_FILENO);
  if (child.errors >= 0) ::dup2(child.errors, STDERR_FILENO);
  if (const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC); null >= 0) ::dup2(null, STDIN_FILENO);
  ::execvpe(child.arguments[0], child.arguments, child.environment);
  static constexpr char kMessage[] = "launch: cannot run the program\n";
  [[maybe_unused]] const ssize_t count = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
  ::_exit(127);
}

/// A pipe that passes on one stream of a rank; returns the rank's end of it.
Descriptor Launch::add_output(int64_t number, int target) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail(ErrorKind::kInternal, "launch: no pipe ({})", std::strerror(errno));
  ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  outputs_.push_back(
      {.source = Descriptor(ends[0]), .target = target, .prefix = fmt::format("[rank {}] ", number)});
  return Descriptor(ends[1]);
}

void Launch::start(int64_t number) {
  const bool is_prefixed = options_.prefix_output && number > 0;
  const Descriptor output = is_prefixed ? add_output(number, STDOUT_FILENO) : Descriptor();
  const Descriptor errors = is_prefixed ? add_output(number, STDERR_FILENO) : Descriptor();
  const Environment environment = environment_of(number);
  const std::vector<char*> variables = pointers_to(environment.entries()),
                           arguments = pointers_to(options_.command);
  const Child child{number, output.get(), errors.get(), arguments.data(), variables.data()};
  const pid_t process = ::fork();
  if (process < 0)
    fail(ErrorKind::kInternal, "launch: cannot start rank {} ({})", number, std::strerror(errno));
  if (process == 0) become(child);
  ::setpgid(process, process);
  ranks_.push_back({.number = number, .process = process, .running = true});
}

void Launch::step() {
  std::vector<pollfd> waits{{.fd = signals_.get(), .events = POLLIN}};
  for (const Output& output : outputs_) waits.push_back({.fd = output.source.get(), .events = POLLIN});
  int timeout_ms = -1;
  if (kill_at_ || suspect_) {
    const auto wanted = (kill_at_ ? *kill_at_ : failed_at_ + kTimeToSettle) - Clock::now();
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(wanted).count();
    timeout_ms = static_cast<int>(std::max<int64_t>(0, left));
  }
  ::poll(waits.data(), waits.size(), timeout_ms);
  std::erase_if(outputs_, [&](Output& output) { return !read_output(output); });
  read_signals();
  reap();
  if (suspect_ && Clock::now() >= failed_at_ + kTimeToSettle) blame(*suspect_);
  if (kill_at_ && Clock::now() >= *kill_at_) {
    signal_all(SIGKILL);
    kill_at_.reset();
  }
}

/// Returns whether more may come.
bool Launch::read_output(Output& output) {
  char buffer[4096];
  ssize_t count;
  while ((count = ::read(output.source.get(), buffer, sizeof buffer)) > 0) {
    output.pending.append(buffer, static_cast<size_t>(count));
    pass_on(output, false);
  }
  const bool more = count < 0 && (errno == EAGAIN || errno == EINTR);
  if (!more) pass_on(output, true);
  return more;
}

void Launch::drain_outputs() {
  for (Output& output : outputs_) {
    if (read_output(output)) pass_on(output, true);
  }
}

void Launch::read_signals() {
  signalfd_siginfo info;
  while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo != SIGCHLD) signal_all(static_cast<int>(info.ssi_signo));
  }
}

void Launch::reap() {
  for (Rank& rank : ranks_) {
    int status = 0;
    if (rank.running && ::waitpid(rank.process, &status, WNOHANG) == rank.process) {
      rank.running = false;
      judge(rank, status);
    }
  }
}

void Launch::judge(const Rank& rank, int status) {
  const bool killed = WIFSIGNALED(status);
  const int code = killed ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  if (code == 0 || status_ != 0) return;
  const std::string how =
      killed ? fmt::format("was killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)))
             : fmt::format("ended with status {}", code);
  if (!suspect_) failed_at_ = Clock::now();
  if (code != exit_status(ErrorKind::kPeer)) return blame({rank.number, code, how});
  if (!suspect_) suspect_ = {rank.number, code, how};
}

void Launch::blame(Blame culprit) {
  suspect_.reset();
  status_ = culprit.code;
  const int64_t others = num_running();
  log::error("rank {} {}{}", culprit.rank, culprit.how,
             others == 0   ? std::string()
             : others == 1 ? std::string("; ending the other rank")
                           : fmt::format("; ending the other {} ranks", others));
  signal_all(SIGTERM);
  // What was waited for the culprit counts, but everybody gets a moment.
  const std::chrono::milliseconds time_to_stop(static_cast<int64_t>(options_.stop_seconds * 1000));
  kill_at_ = std::max(failed_at_ + time_to_stop, Clock::now() + std::min(time_to_stop, kLeastTimeToStop));
}

void Launch::signal_all(int signal) {
  for (const Rank& rank : ranks_) {
    if (rank.running) ::kill(-rank.process, signal);
  }
}

}  // namespace

int launch_ranks(const LaunchOptions& options) {
  if (options.num_ranks < 1)
    fail(ErrorKind::kUsage, "launch: expected at least 1 rank, got {}", options.num_ranks);
  if (options.command.empty()) fail(ErrorKind::kUsage, "launch: nothing to run");
  return Launch(options).run();
}

}  // namespace fathom
