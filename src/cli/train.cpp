// fathom train RECIPE.toml [--set key=value]… [--out RUN] [--resume] [--dry-run] [--json]
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "distributed/collective.h"
#include "tensor/cpu_runtime.h"
#include "tensor/device.h"
#include "train/estimate.h"
#include "train/run_folder.h"
#include "train/session.h"
#include "train/trainer.h"

namespace fathom::cli {
namespace {

struct TrainOptions {
  std::string recipe;
  std::vector<std::string> overrides;
  std::string out;
  bool resume = false;
  bool dry_run = false;
  bool json = false;
};

void add_options(CLI::App& app, TrainOptions& options) {
  app.add_option("recipe", options.recipe, "the recipe, a TOML file")->required();
  app.add_option("--set", options.overrides, "key=value: replaces a key of the recipe; may be repeated")
      ->take_all()
      ->allow_extra_args(false);
  app.add_option("--out", options.out, "folder of the run (default: runs/RECIPE)");
  app.add_flag("--resume", options.resume,
               "go on from the newest training state of the run, if there is one");
  app.add_flag("--dry-run", options.dry_run, "say what the run would cost, without training");
  app.add_flag("--json", options.json, "print one JSON object");
}

RecipeConfig read_recipe(const TrainOptions& options) {
  ConfigTree tree = read_toml_file(options.recipe);
  for (const std::string& assignment : options.overrides) apply_override(tree, assignment);
  return read_config<RecipeConfig>(tree);
}

void prepare_folder(const RunFolder& folder, bool resume) {
  if (folder.has_run() && !resume)
    fail(ErrorKind::kConfig, "{} holds a run already: give --resume to go on, or another --out", folder.path);
  std::error_code error;
  std::filesystem::create_directories(folder.path, error);
  if (error) fail(ErrorKind::kConfig, "--out: cannot create {}: {}", folder.path, error.message());
}

void print_estimate(const Estimate& estimate, const std::vector<MixShare>& mix, const TrainOptions& options) {
  if (options.json) {
    Json json = estimate.to_json();
    for (const MixShare& share : mix) json["mix"].push_back(share.to_json());
    return print_json(json);
  }
  int64_t epoch_samples = 0;
  for (const MixShare& share : mix) epoch_samples += share.epoch_samples;
  for (const MixShare& share : mix)
    fmt::print("mix                {} of {} samples an epoch ({:.1f} %) from {}, which has {}\n",
               share.epoch_samples, epoch_samples,
               100 * static_cast<double>(share.epoch_samples) / static_cast<double>(epoch_samples),
               share.data, share.samples);
  constexpr double kGiga = 1e9;
  fmt::print("parameters         {:.2f} million\n", static_cast<double>(estimate.parameters) / 1e6);
  fmt::print("FLOPs a step       {:.4g}\n", estimate.step_flops);
  fmt::print("steps              {}\n", estimate.steps);
  fmt::print("memory, each rank  {:.2f} GB of weights and moments, about {:.2f} GB of activations{}\n",
             static_cast<double>(estimate.state_bytes) / kGiga,
             static_cast<double>(estimate.activation_bytes) / kGiga,
             estimate.device_bytes > 0 ? fmt::format(" (the device has {:.1f} GB)",
                                                     static_cast<double>(estimate.device_bytes) / kGiga)
                                       : "");
  fmt::print("estimated time     {}\n", format_duration(estimate.seconds));
}

void print_summary(const TrainingSummary& summary, const RunFolder& folder, bool as_json) {
  if (as_json) {
    Json json = summary.to_json();
    json["run"] = folder.path;
    return print_json(json);
  }
  fmt::print("{} after {} steps and {}: loss {:.4f}\n", stop_reason_name(summary.reason), summary.steps,
             format_duration(summary.seconds), summary.last_loss);
  if (summary.replaced > 0)
    fmt::print("{} samples could not be read and were replaced by others\n", summary.replaced);
  if (!summary.metrics.empty()) fmt::print("evaluation after {} steps:\n", summary.evaluated_step);
  for (const auto& [name, metric] : summary.metrics) fmt::print("  {:<24} {:.4f}\n", name, metric.value);
  fmt::print("model: {}\n", folder.model());
}

/// One rank's part. Only rank 0 speaks on standard output.
void train(const TrainOptions& options, const RecipeConfig& recipe, Collective& collective,
           DeviceRuntime& runtime) {
  const bool is_main = collective.rank() == 0;
  const RunFolder folder{options.out};
  if (is_main && !options.dry_run) prepare_folder(folder, options.resume);
  collective.barrier();
  const Session session = open_session(recipe, {.collective = collective,
                                                .runtime = runtime,
                                                .run_folder = options.dry_run ? "" : folder.path,
                                                .goes_on = options.resume && folder.has_state(),
                                                .names_only = options.dry_run});
  if (options.dry_run) {
    if (is_main)
      print_estimate(
          estimate_run(session.recipe, session.loader->batches_per_epoch(), collective.size(), runtime),
          session.mix, options);
    return;
  }
  Trainer trainer(session.trainer_config(folder.path), {*session.task, *session.loader, collective, runtime});
  if (options.resume && trainer.resume())
    log::info("going on from step {} of {}", trainer.step(), trainer.total_steps());
  // Only now: a run that cannot be resumed so keeps its recipe.
  if (is_main) write_file_atomically(folder.recipe(), json_to_toml(config_to_json(session.recipe)));
  const TrainingSummary summary = trainer.run();
  if (is_main) print_summary(summary, folder, options.json);
}

}  // namespace

int run_train(int argc, const char* const* argv) {
  keep_freed_memory();
  TrainOptions options;
  VerbApp app("train", "Trains a model by a recipe.");
  add_options(app, options);
  if (!parse_options(app, argc, argv)) return 0;
  if (options.out.empty()) options.out = "runs/" + std::filesystem::path(options.recipe).stem().string();

  const RecipeConfig recipe = read_recipe(options);
  const RankEnvironment ranks = RankEnvironment::from_environment();
  check_ranks(recipe, ranks.size);
  if (ranks.size > 1) log::set_prefix(fmt::format("rank {}", ranks.rank));
  const at::Device device = select_device(recipe.device, ranks.local_rank);
  const std::unique_ptr<DeviceRuntime> runtime = make_device_runtime(device);
  runtime->activate();
  const std::unique_ptr<Collective> collective = make_collective(ranks, device, recipe.collective);
  run_rank(*collective, [&] { train(options, recipe, *collective, *runtime); });
  return 0;
}

}  // namespace fathom::cli
