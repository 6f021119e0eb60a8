#include "cli/options.h"

#include <fmt/format.h>

#include <filesystem>

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

CLI::Validator at_least(double low) {
  return CLI::Validator(
      [low](const std::string& text) {
        double value = 0;
        if (CLI::detail::lexical_cast(text, value) && value >= low) return std::string();
        return fmt::format("expected a number of at least {:g}, got {}", low, text);
      },
      fmt::format("≥ {:g}", low));
}

CLI::Validator in_a_folder() {
  return CLI::Validator(
      [](const std::string& path) {
        const std::filesystem::path folder = std::filesystem::path(path).parent_path();
        std::error_code error;
        if (std::filesystem::is_directory(path, error))
          return fmt::format("{}: is a folder, not a file", path);
        if (folder.empty() || std::filesystem::is_directory(folder, error)) return std::string();
        return fmt::format("{}: there is no folder {}", path, folder.string());
      },
      "");
}

void print_json(const Json& value) {
  fmt::print("{}\n", value.dump());
}

}  // namespace fathom::cli
