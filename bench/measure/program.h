// How a bench with options begins and ends.
#pragma once

#include <fmt/format.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>

#include "base/error.h"

namespace fathom::bench {

/// Reads the options, then does `work`: the program's exit status. Errors are printed.
inline int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& work) {
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);  // as `fathom train` does
  ::mallopt(M_TRIM_THRESHOLD, 2000 << 20);
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
