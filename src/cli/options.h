// What every verb does with its command line.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/json.h"

namespace fathom::cli {

/// Parses argv (argv[0] is the verb) into the app's options. True: go on; false: help was asked for and
/// printed, the verb returns 0. Errors (kUsage): what CLI11 finds wrong, with the way to the verb's help.
bool parse_options(CLI::App& app, int argc, const char* const* argv);

/// An app that prints "fathom VERB" in its usage line.
class VerbApp : public CLI::App {
 public:
  VerbApp(const std::string& verb, const std::string& description);
};

/// A check of numbers: "expected at least 1, got 0".
CLI::Validator at_least(double low);

/// A check of files to write: the folder they go to is there. Said now, not after the work.
CLI::Validator in_a_folder();

/// One object on a line of its own on standard output.
void print_json(const Json& value);

}  // namespace fathom::cli
