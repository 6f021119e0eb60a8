#include "cli/options.h"

#include <fmt/format.h>

#include "base/error.h"

namespace fathom::cli {

VerbApp::VerbApp(const std::string& verb, const std::string& description)
    : CLI::App(description, "fathom " + verb) {
  get_formatter()->column_width(34);
}

bool parse_options(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
    return true;
  } catch (const CLI::Success& help) {  // --help, also of a subcommand
    app.exit(help);
    return false;
  } catch (const CLI::ParseError& error) {
    fail(ErrorKind::kUsage, "{}\nsee: {} --help", error.what(), app.get_name());
  }
}

void print_json(const Json& value) {
  fmt::print("{}\n", value.dump());
}

}  // namespace fathom::cli
