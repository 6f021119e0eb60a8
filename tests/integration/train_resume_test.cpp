// Killed at any moment, a run goes on as if nothing had happened.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "base/file.h"
#include "cli_program.h"
#include "training_run.h"

namespace fathom::train_resume_test {
namespace {

namespace fs = std::filesystem;

constexpr int kKills = 20;

/// Starts `fathom ARGUMENTS… --resume` and kills it after `delay`. False: it had finished by itself.
bool run_and_kill(std::vector<std::string> arguments, std::chrono::milliseconds delay) {
  arguments.emplace_back("--resume");
  RunningProgram program(arguments);
  std::this_thread::sleep_for(delay);
  ::kill(program.process(), SIGKILL);
  const ProgramResult result = program.wait();
  if (result.status == 128 + SIGKILL) return true;
  EXPECT_EQ(result.status, 0) << result.error;
  return false;
}

void expect_equal_runs(const std::string& expected, const std::string& run) {
  EXPECT_EQ(timeless_log(run), timeless_log(expected));
  for (const std::string& file : state_files())
    EXPECT_EQ(read_file(newest_state(run) + "/" + file), read_file(newest_state(expected) + "/" + file))
        << file;
  const Json values = read_json_file(newest_state(run) + "/state.json");
  const Json expected_values = read_json_file(newest_state(expected) + "/state.json");
  for (const char* key : {"data", "recipe", "best", "evaluation", "evaluated_step", "stops_early"})
    EXPECT_EQ(values.at(key), expected_values.at(key));
  for (const char* file : {"/model/vision/model.safetensors", "/model/text/model.safetensors"})
    EXPECT_EQ(read_file(run + file), read_file(expected + file)) << file;
}

TEST(Resume, EqualsTheUninterruptedRunAfterTwentyKills) {
  const TrainingWorld world;
  const std::vector<std::string> settings = {"training.max_steps=200", "evaluation.every=75",
                                             "checkpoint.model_every=50"};
  const auto words = [&](const std::string& run) { return world.arguments(run, settings); };
  const auto start = std::chrono::steady_clock::now();
  const ProgramResult whole = run_program(words(world / "whole"));
  ASSERT_EQ(whole.status, 0) << whole.error;
  const auto needed =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);

  std::mt19937 random(20);
  std::uniform_int_distribution<int64_t> delay(50, needed.count() / 4 + 1000);
  int kills = 0;
  int finished = 0;
  std::string run = world / "run0";
  while (kills < kKills || newest_state(run).empty()) {
    if (run_and_kill(words(run), std::chrono::milliseconds(delay(random)))) {
      ++kills;
      continue;
    }
    expect_equal_runs(world / "whole", run);
    run = world / ("run" + std::to_string(++finished));
  }
  std::vector<std::string> last = words(run);
  last.emplace_back("--resume");
  const ProgramResult resumed = run_program(last);
  ASSERT_EQ(resumed.status, 0) << resumed.error;
  expect_equal_runs(world / "whole", run);
}

/// A run of 45 steps, cut off between epochs, in the middle of them, and while the next epoch's order is
/// fixed already. What the whole run said on standard error.
std::string expect_equal_after_cuts(const TrainingWorld& world, const std::vector<std::string>& settings,
                                    const std::vector<const char*>& files) {
  const auto until = [&](int64_t step) {  // the schedule does not know when the run ends
    std::vector<std::string> all = settings;
    all.insert(all.end(),
               {"schedule.shape=constant", "schedule.warmup_steps=4", "checkpoint.every=1",
                "checkpoint.keep=0", "evaluation.every=0", "training.max_steps=" + std::to_string(step)});
    return all;
  };
  const ProgramResult whole = run_program(world.arguments(world / "whole", until(45)));
  EXPECT_EQ(whole.status, 0) << whole.error;
  for (const int64_t step : {3, 16, 21, 29, 45}) {
    std::vector<std::string> words = world.arguments(world / "run", until(step));
    words.emplace_back("--resume");
    const ProgramResult part = run_program(words);
    EXPECT_EQ(part.status, 0) << part.error;
  }
  for (const char* file : files)
    EXPECT_TRUE(read_file(newest_state(world / "run") + file) ==
                read_file(newest_state(world / "whole") + file))
        << file;
  return whole.error;
}

TEST(Resume, EqualsTheUninterruptedRunWithABankOfNegativesAndCountsOfWords) {
  const TrainingWorld world;
  expect_equal_after_cuts(
      world,
      {"model.region=attention", "contrastive.hard_negatives.refresh=3", "contrastive.hard_negatives.group=4",
       "contrastive.hard_negatives.max_similarity=0.8", "contrastive.hard_negatives.sharpness=2",
       "contrastive.consistency=0.2", "contrastive.word_weight=0.3", "contrastive.localization=0.3"},
      {"/model.safetensors", "/optimizer.safetensors", "/task.safetensors"});
}

/// From a scale that overflows, which then falls, and grows again.
TEST(Resume, EqualsTheUninterruptedRunUnderALossScale) {
  const TrainingWorld world;
  const std::string said = expect_equal_after_cuts(
      world,
      {"precision=fp16_bf16", "loss_scale.initial=1099511627776", "loss_scale.growth_interval=5",
       "training.log_every=1", "evaluation.at_end=false"},
      {"/model.safetensors", "/optimizer.safetensors", "/loss_scale.safetensors"});
  EXPECT_NE(said.find("on a CPU is a reference"), std::string::npos) << said;
  const std::vector<Json> log = timeless_log(world / "whole");
  EXPECT_EQ(log, timeless_log(world / "run"));
  ASSERT_GE(log.size(), 45u);
  EXPECT_EQ(log.front().at("loss_scale").as_double(), 1099511627776.0);
  EXPECT_GE(log[44].at("skipped_steps").as_double(), 1);
  EXPECT_LT(log[44].at("loss_scale").as_double(), 1099511627776.0);
  EXPECT_EQ(log[44].at("saturated_casts").as_double(), 0);
}

/// Whether something of the run is half written at this moment.
bool is_saving(const std::string& run) {
  for (const std::string& folder : {run, run + "/checkpoints", run + "/models"}) {
    std::error_code vanished;
    for (fs::directory_iterator entry(folder, vanished), end; !vanished && entry != end;
         entry.increment(vanished))
      if (entry->path().extension() == ".tmp") return true;
  }
  return false;
}

TEST(Resume, EqualsTheUninterruptedRunAfterKillsInTheMiddleOfSaves) {
  const TrainingWorld world;
  const std::vector<std::string> settings = {"checkpoint.every=1", "checkpoint.model_every=3",
                                             "training.max_steps=120", "evaluation.every=10"};
  const ProgramResult whole = run_program(world.arguments(world / "whole", settings));
  ASSERT_EQ(whole.status, 0) << whole.error;
  std::mt19937 random(7);
  std::uniform_int_distribution<int64_t> later(0, 300);
  std::vector<std::string> words = world.arguments(world / "run", settings);
  words.emplace_back("--resume");
  int torn = 0;
  for (int64_t kill = 0, step = -1; kill < 8; ++kill) {
    RunningProgram program(words);
    // The run has gone on from the last kill, then comes to some save.
    while (program.is_running() && newest_step(world / "run") <= step)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(later(random)));
    while (program.is_running() && !is_saving(world / "run")) {
    }
    ::kill(program.process(), SIGKILL);
    if (program.wait().status != 128 + SIGKILL) break;
    torn += is_saving(world / "run");
    step = newest_step(world / "run");
  }
  EXPECT_GE(torn, 1) << "no kill left anything half written";
  const ProgramResult rest = run_program(words);
  ASSERT_EQ(rest.status, 0) << rest.error;
  expect_equal_runs(world / "whole", world / "run");
  EXPECT_FALSE(is_saving(world / "run")) << "what kills left behind is swept up";
}

TEST(Resume, AsksBeforeItOverwrites) {
  const TrainingWorld world;
  ASSERT_EQ(run_program(world.arguments(world / "run", {"training.max_steps=2"})).status, 0);
  const ProgramResult again = run_program(world.arguments(world / "run", {"training.max_steps=2"}));
  EXPECT_EQ(again.status, 1);
  EXPECT_NE(again.error.find("holds a run already: give --resume"), std::string::npos) << again.error;
}

}  // namespace
}  // namespace fathom::train_resume_test
