// Runs the program and keeps what it says; a small world of files to run it on.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/json.h"
#include "temporary_folder.h"

namespace fathom {

struct ProgramResult {
  int status = -1;  ///< exit status, or 128 + signal
  std::string out;
  std::string error;
};

/// `fathom ARGUMENTS…` at work, with its own cache folder and an empty standard input. Killed when it is
/// destroyed before it was waited for, and when the tests end.
class RunningProgram {
 public:
  explicit RunningProgram(const std::vector<std::string>& arguments, const std::string& limits = "");
  ~RunningProgram();
  RunningProgram(const RunningProgram&) = delete;
  RunningProgram& operator=(const RunningProgram&) = delete;

  pid_t process() const { return process_; }
  bool is_running() const;
  ProgramResult wait();

 private:
  TemporaryFolder folder_;
  pid_t process_ = 0;
  bool running_ = false;
};

/// Runs `fathom ARGUMENTS…` to its end.
ProgramResult run_program(const std::vector<std::string>& arguments);
/// The same in a shell in which `limits` were set before: "ulimit -v 2000000", "exec >/dev/full".
ProgramResult run_program_under(const std::string& limits, const std::vector<std::string>& arguments);

/// The one object that it prints with --json.
Json expect_json(const ProgramResult& result);
/// Of `fathom WORDS… --json`.
Json run_json(std::vector<std::string> words);

/// Expects that the program ended with `status`, nothing on standard output, and at most two lines that begin
/// with "fathom: ", hold all of `said` and no stack trace. Lines of log and progress may stand before them.
void expect_failure(const ProgramResult& result, int status, const std::vector<std::string>& said);

/// A folder with eight captioned and labelled pictures (data/), a text (text.txt), a dual tower (tower/) and
/// a language model (language/), both untrained.
class SmallWorld {
 public:
  SmallWorld();
  std::string operator/(const std::string& name) const { return folder_ / name; }

 private:
  TemporaryFolder folder_;
};

}  // namespace fathom
