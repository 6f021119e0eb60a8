// The program: finds the verb, runs it, and turns what it throws into one or two lines and an exit status
// (0 done, 1 the input is at fault, 2 wrong usage, 3 our fault).
#include <c10/util/Exception.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "base/version.h"
#include "cli/verbs.h"

namespace fathom::cli {
namespace {

constexpr const char* kIntroduction =
    "Fathom trains, evaluates and searches models of pictures and text.\n"
    "\n"
    "usage: fathom VERB [OPTION]…\n"
    "       fathom help VERB\n"
    "\n";

void print_help() {
  fmt::print("{}", kIntroduction);
  for (const Verb& verb : verbs()) fmt::print("  {:<12}{}\n", verb.name, verb.help);
  fmt::print("\nExit status: 0 done, 1 the input is at fault, 2 wrong usage, 3 a fault of Fathom.\n");
}

const Verb& find_verb(const std::string& name) {
  std::vector<std::string> names;
  for (const Verb& verb : verbs()) {
    if (name == verb.name) return verb;
    names.emplace_back(verb.name);
  }
  const std::string nearest = nearest_name(name, names);
  fail(ErrorKind::kUsage, "unknown verb '{}'{}\nsee: fathom --help", name,
       nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
}

int run(int argc, const char* const* argv) {
  const std::string first = argc > 1 ? argv[1] : "--help";
  if (first == "--version") {
    fmt::print("fathom {} ({})\n", version(), commit());
    return 0;
  }
  if (first == "--help" || first == "-h" || (first == "help" && argc == 2)) {
    print_help();
    return argc > 1 ? 0 : 2;
  }
  if (first == "help") {
    const char* const arguments[] = {find_verb(argv[2]).name, "--help"};
    return find_verb(argv[2]).run(2, arguments);
  }
  return find_verb(first).run(argc - 1, argv + 1);
}

/// Names from outside may hold anything: two lines at most, and nothing that a terminal would obey.
std::string printable(std::string message) {
  bool is_second_line = false;
  for (char& c : message) {
    if (c == '\n' && !std::exchange(is_second_line, true)) continue;
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = ' ';
  }
  return message;
}

int report(const std::string& message, int status) {
  std::fflush(stdout);
  std::fputs(fmt::format("fathom: {}\n", printable(message)).c_str(), stderr);
  return status;
}

constexpr const char* kLowerWhat =
    "\nlower the (micro-)batch size, the image size, the number of tokens or the model's width and depth, or "
    "turn on checkpoint_blocks";

/// LibTorch's message without its stack trace: the first line.
int report_torch_error(const c10::Error& error) {
  const std::string whole = error.what_without_backtrace();
  const std::string line = whole.substr(0, whole.find('\n'));
  // The CPU allocator throws a plain Error when memory is out.
  const size_t cpu = line.find("can't allocate memory");
  if (cpu != std::string::npos) return report("out of memory: " + line.substr(cpu) + kLowerWhat, 1);
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error)) return report(line + kLowerWhat, 1);
  return report("internal error: " + line, 3);
}

/// A stream that is closed would be the next file that is opened, and would be written into.
void occupy_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(stream, F_GETFD) < 0) ::open("/dev/null", O_RDONLY);
}

}  // namespace
}  // namespace fathom::cli

int main(int argc, char** argv) {
  using namespace fathom;
  cli::occupy_closed_streams();
  try {
    const int status = cli::run(argc, argv);
    // Results that could not be written are no results.
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      return cli::report("cannot write to standard output", 1);
    return status;
  } catch (const Error& error) {
    const bool ours = error.kind() == ErrorKind::kInternal;
    return cli::report((ours ? "internal error: " : "") + std::string(error.what()),
                       exit_status(error.kind()));
  } catch (const c10::Error& error) {
    return cli::report_torch_error(error);
  } catch (const std::bad_alloc&) {
    return cli::report(std::string("out of memory") + cli::kLowerWhat, 1);
  } catch (const std::filesystem::filesystem_error& error) {
    return cli::report(error.path1().string() + ": " + error.code().message(), 1);
  } catch (const std::system_error& error) {  // no threads, no files, no place for the output
    return cli::report(error.what(), 1);
  } catch (const std::exception& error) {
    return cli::report(std::string("internal error: ") + error.what(), 3);
  }
}
