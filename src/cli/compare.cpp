// fathom compare RESULTS… --against RESULTS…
#include <fmt/format.h>

#include "cli/options.h"
#include "cli/verbs.h"
#include "evaluate/paired_bootstrap.h"

namespace fathom::cli {
namespace {

struct CompareOptions {
  std::vector<std::string> first, second;
  BootstrapOptions bootstrap;
  bool as_json = false;
};

void add_options(CLI::App& app, CompareOptions& options) {
  app.add_option("results", options.first,
                 "what `fathom eval --per-sample` wrote of one run, or of one run a seed")
      ->required()
      ->type_name("FILES");
  app.add_option("--against", options.second, "the same of the runs that are compared with")
      ->required()
      ->type_name("FILES");
  app.add_option("--resamples", options.bootstrap.resamples, "how often pictures are drawn anew")
      ->check(CLI::Range(100, 10000000))
      ->capture_default_str();
  app.add_option("--seed", options.bootstrap.seed, "draws them")->capture_default_str();
  app.add_flag("--json", options.as_json, "print one JSON object");
}

Arm read_arm(const std::vector<std::string>& paths) {
  Arm arm;
  for (const std::string& path : paths) arm.emplace_back(read_sample_results(path), path);
  return arm;
}

void print(const PairedReport& report) {
  fmt::print("percent, and the 95 % interval of the difference ({} resamples of {} pictures)\n",
             report.options.resamples, report.clusters);
  for (const PairedDifference& one : report.differences)
    fmt::print("  {:<32} {:>6.2f} against {:>6.2f}: {:+.2f} [{:+.2f}, {:+.2f}] on {}\n", one.metric,
               one.first, one.second, one.difference(), one.low, one.high, one.count);
}

}  // namespace

int run_compare(int argc, const char* const* argv) {
  VerbApp app("compare", "Says how sure the difference of two runs on the same data is: paired bootstrap.");
  CompareOptions options;
  add_options(app, options);
  if (!parse_options(app, argc, argv)) return 0;
  const PairedReport report =
      compare_runs(read_arm(options.first), read_arm(options.second), options.bootstrap);
  if (options.as_json)
    print_json(report.to_json());
  else
    print(report);
  return 0;
}

}  // namespace fathom::cli
