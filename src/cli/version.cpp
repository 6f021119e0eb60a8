// fathom version [--json]
#include "base/version.h"

#include <fmt/format.h>

#include "cli/options.h"
#include "cli/verbs.h"

namespace fathom::cli {

int run_version(int argc, const char* const* argv) {
  VerbApp app("version", "Says which version this is and which commit it was built from.");
  bool as_json = false;
  app.add_flag("--json", as_json, "print one JSON object");
  if (!parse_options(app, argc, argv)) return 0;
  if (as_json)
    print_json(Json::Object{{"version", version()}, {"commit", commit()}});
  else
    fmt::print("fathom {} ({})\n", version(), commit());
  return 0;
}

}  // namespace fathom::cli
