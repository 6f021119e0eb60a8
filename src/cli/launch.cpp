// fathom launch -n N [--cpus-per-rank K] -- VERB [OPTION]…
#include "distributed/launcher.h"

#include <filesystem>

#include "base/error.h"
#include "cli/options.h"
#include "cli/verbs.h"

namespace fathom::cli {

int run_launch(int argc, const char* const* argv) {
  VerbApp app(
      "launch",
      "Runs a verb of fathom as several processes of this machine that train together, for example\n"
      "  fathom launch -n 4 -- train recipe.toml --out run\n"
      "On several machines use torchrun --no-python, srun or mpirun instead: fathom reads their variables.");
  LaunchOptions options;
  std::vector<std::string> verb;
  bool no_prefix = false;
  app.add_option("-n,--ranks", options.num_ranks, "number of processes; on GPUs one for each")
      ->required()
      ->check(CLI::Range(1, 1024));
  app.add_option("--cpus-per-rank", options.cpus_per_rank,
                 "threads of each process (default: this machine's, shared out)")
      ->check(at_least(1));
  app.add_option("--stop-seconds", options.stop_seconds, "time that ranks get to leave after one has failed")
      ->check(at_least(0));
  app.add_flag("--no-prefix", no_prefix, "do not begin the lines of ranks 1 and up with their number");
  app.add_option("verb", verb, "the verb to run and its options, after --")->required();
  if (!parse_options(app, argc, argv)) return 0;
  if (verb.front() == "launch") fail(ErrorKind::kUsage, "launch: cannot launch itself");
  options.prefix_output = !no_prefix;
  options.command = {std::filesystem::read_symlink("/proc/self/exe").string()};
  options.command.insert(options.command.end(), verb.begin(), verb.end());
  return launch_ranks(options);
}

}  // namespace fathom::cli
