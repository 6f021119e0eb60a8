// `fathom data make scenes`, `fathom data inspect`.
#include <cstdio>
#include <optional>

#include "base/error.h"
#include "base/progress.h"
#include "cli/data_argument.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "data/readers/inspect.h"
#include "data/scenes/write.h"

namespace fathom::cli {
namespace {

struct MakeOptions {
  std::string world;
  std::string folder;
  scenes::WorldConfig config;
  bool json = false;
};

struct InspectArguments {
  DatasetConfig config;
  bool headers_only = false;
  bool json = false;
};

void add_make(CLI::App& app, MakeOptions& options) {
  CLI::App* make = app.add_subcommand("make", "Write a built-in world as files");
  make->add_option("world", options.world, "which world: scenes")
      ->required()
      ->check(CLI::IsMember({"scenes"}));
  make->add_option("folder", options.folder, "where to write it")->required();
  make->add_option("--train", options.config.train, "training scenes")->capture_default_str();
  make->add_option("--val", options.config.val, "validation scenes")->capture_default_str();
  make->add_option("--seed", options.config.seed, "which scenes")->capture_default_str();
  make->add_option("--size", options.config.size, "pixels a side, usually 64 or 96")->capture_default_str();
  make->add_option("--max-objects", options.config.max_objects, "most objects of a scene, 1 to 5")
      ->capture_default_str();
  make->add_flag("--sounds", options.config.sounds, "a sound for every scene, which tells of its objects");
  make->add_flag("--json", options.json, "print one JSON object");
}

void add_inspect(CLI::App& app, InspectArguments& arguments) {
  CLI::App* inspect = app.add_subcommand("inspect", "Count, show samples, and list every problem");
  inspect->add_option("path", arguments.config.path, "manifest, text file, tar shards or folder")->required();
  inspect->add_option("--split", arguments.config.split, "this split only");
  inspect->add_option("--columns", arguments.config.columns, "theirs=ours, for manifests with other keys");
  add_picture_options(*inspect, arguments.config);
  inspect->add_flag("--headers-only", arguments.headers_only, "do not decode images");
  inspect->add_flag("--json", arguments.json, "print one JSON object");
}

int make_world(const MakeOptions& options) {
  options.config.validate();
  bool written = false;
  {
    Progress progress("scenes", options.config.train + options.config.val);
    written =
        scenes::write_world(options.config, options.folder, [&](int64_t done) { progress.update(done); });
  }
  Json marker = scenes::read_world_marker(options.folder);
  if (options.json) {
    marker["path"] = options.folder;
    marker["written"] = written;
    print_json(marker);
    return 0;
  }
  fmt::print("{}: {} train and {} val scenes, {} captions, {} questions{}{}\n", options.folder,
             options.config.train, options.config.val, marker.at("captions").as_int(),
             marker.at("questions").as_int(), options.config.sounds ? ", with sounds" : "",
             written ? "" : " (already complete)");
  return 0;
}

/// Exit status 1 where problems were found, as for any other fault of the input.
int inspect(const InspectArguments& arguments) {
  std::optional<Progress> progress;
  const auto summary = inspect_dataset(arguments.config, {.decode = !arguments.headers_only},
                                       [&](int64_t done, int64_t total) {
                                         if (!progress) progress.emplace("samples", total);
                                         progress->update(done);
                                       });
  progress.reset();
  if (arguments.json) {
    print_json(summary.to_json());
  } else {
    fmt::print("{}", summary.to_text());
  }
  return summary.report->count() == 0 ? 0 : 1;
}

}  // namespace

int run_data(int argc, const char* const* argv) {
  VerbApp app("data", "Write the built-in world as files, or look into a data set");
  app.require_subcommand(1);
  MakeOptions make_options;
  InspectArguments inspect_arguments;
  add_make(app, make_options);
  add_inspect(app, inspect_arguments);
  if (!parse_options(app, argc, argv)) return 0;
  return app.got_subcommand("make") ? make_world(make_options) : inspect(inspect_arguments);
}

}  // namespace fathom::cli
