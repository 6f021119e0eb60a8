// How a bench with options begins and ends.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>

#include "base/error.h"
#include "tensor/cpu_runtime.h"

namespace fathom::bench {

/// Reads the options, then does `work`: the program's exit status. Errors are printed.
inline int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& work) {
  keep_freed_memory();  // as `fathom train` and `fathom embed` do
  try {
    app.parse(argc, argv);
    work();
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return exit_status(error.kind());
  }
}

}  // namespace fathom::bench
