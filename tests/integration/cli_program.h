// Runs the program and keeps what it says; a small world of files to run it on.
#pragma once

#include <string>
#include <vector>

#include "temporary_folder.h"

namespace fathom {

struct ProgramResult {
  int status = -1;  ///< exit status, or 128 + signal
  std::string out;
  std::string error;
};

/// Runs `fathom ARGUMENTS…` with its own cache folder.
ProgramResult run_program(const std::vector<std::string>& arguments);

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
