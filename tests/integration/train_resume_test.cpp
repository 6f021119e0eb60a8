// Killed at any moment, a run goes on as if nothing had happened.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <chrono>
#include <random>
#include <thread>

#include "base/file.h"
#include "cli_program.h"
#include "training_run.h"

namespace fathom {
namespace {

constexpr int kKills = 20;

/// Starts `fathom ARGUMENTS… --resume` and kills it after `delay`. False: it had finished by itself.
bool run_and_kill(std::vector<std::string> arguments, std::chrono::milliseconds delay) {
  arguments.insert(arguments.begin(), FATHOM_PROGRAM);
  arguments.emplace_back("--resume");
  std::vector<char*> argv;
  for (std::string& word : arguments) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  for (const int fd : {1, 2}) ::posix_spawn_file_actions_addopen(&files, fd, "/dev/null", 1, 0);
  pid_t process = 0;
  EXPECT_EQ(::posix_spawn(&process, argv[0], &files, nullptr, argv.data(), environ), 0);
  ::posix_spawn_file_actions_destroy(&files);
  std::this_thread::sleep_for(delay);
  ::kill(process, SIGKILL);
  int status = 0;
  ::waitpid(process, &status, 0);
  if (WIFSIGNALED(status)) return true;
  EXPECT_EQ(WEXITSTATUS(status), 0);
  return false;
}

void expect_equal_runs(const std::string& expected, const std::string& run) {
  EXPECT_EQ(timeless_log(run), timeless_log(expected));
  for (const std::string& file : state_files())
    EXPECT_EQ(read_file(newest_state(run) + "/" + file), read_file(newest_state(expected) + "/" + file))
        << file;
  const Json values = read_json_file(newest_state(run) + "/state.json");
  const Json expected_values = read_json_file(newest_state(expected) + "/state.json");
  for (const char* key : {"data", "seed", "best", "evaluated_step"})
    EXPECT_EQ(values.at(key), expected_values.at(key));
  for (const char* file : {"/model/vision/model.safetensors", "/model/text/model.safetensors"})
    EXPECT_EQ(read_file(run + file), read_file(expected + file)) << file;
}

TEST(Resume, EqualsTheUninterruptedRunAfterTwentyKills) {
  const TrainingWorld world;
  const auto start = std::chrono::steady_clock::now();
  const ProgramResult whole = run_program(world.arguments(world / "whole"));
  ASSERT_EQ(whole.status, 0) << whole.error;
  const auto needed =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);

  std::mt19937 random(20);
  std::uniform_int_distribution<int64_t> delay(50, needed.count() / 4 + 1000);
  int kills = 0;
  int finished = 0;
  std::string run = world / "run0";
  while (kills < kKills || newest_state(run).empty()) {
    if (run_and_kill(world.arguments(run), std::chrono::milliseconds(delay(random)))) {
      ++kills;
      continue;
    }
    expect_equal_runs(world / "whole", run);
    run = world / ("run" + std::to_string(++finished));
  }
  std::vector<std::string> last = world.arguments(run);
  last.emplace_back("--resume");
  const ProgramResult resumed = run_program(last);
  ASSERT_EQ(resumed.status, 0) << resumed.error;
  expect_equal_runs(world / "whole", run);
}

TEST(Resume, AsksBeforeItOverwrites) {
  const TrainingWorld world;
  ASSERT_EQ(run_program(world.arguments(world / "run", {"training.max_steps=2"})).status, 0);
  const ProgramResult again = run_program(world.arguments(world / "run", {"training.max_steps=2"}));
  EXPECT_EQ(again.status, 1);
  EXPECT_NE(again.error.find("holds a run already: give --resume"), std::string::npos) << again.error;
}

}  // namespace
}  // namespace fathom
