// The verbs of the command line: one function and one file each. `argv[0]` is the verb itself.
#pragma once

#include <span>

namespace fathom::cli {

int run_data(int argc, const char* const* argv);
int run_tokenizer(int argc, const char* const* argv);
int run_train(int argc, const char* const* argv);
int run_launch(int argc, const char* const* argv);
int run_eval(int argc, const char* const* argv);
int run_compare(int argc, const char* const* argv);
int run_embed(int argc, const char* const* argv);
int run_search(int argc, const char* const* argv);
int run_ask(int argc, const char* const* argv);
int run_generate(int argc, const char* const* argv);
int run_bench(int argc, const char* const* argv);
int run_report(int argc, const char* const* argv);
int run_doctor(int argc, const char* const* argv);
int run_version(int argc, const char* const* argv);
int run_completion(int argc, const char* const* argv);
int run_reference(int argc, const char* const* argv);

struct Verb {
  const char* name;
  const char* help;  ///< one line
  int (*run)(int argc, const char* const* argv);
};

/// Every verb, in the order that `fathom --help` shows.
std::span<const Verb> verbs();

}  // namespace fathom::cli
