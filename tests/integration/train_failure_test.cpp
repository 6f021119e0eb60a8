// A training run on two ranks that loses one: all end at once, the rank is named, and the run goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "cli_program.h"
#include "training_run.h"

namespace fathom::train_failure_test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

constexpr std::chrono::seconds kLimit{10};

std::vector<std::string> on_two_ranks(std::vector<std::string> words) {
  words.insert(words.begin(), {"launch", "-n", "2", "--cpus-per-rank", "1", "--"});
  return words;
}

/// Processes whose parent is `parent`, in the order they were started.
std::vector<pid_t> children_of(pid_t parent) {
  const std::string path =
      "/proc/" + std::to_string(parent) + "/task/" + std::to_string(parent) + "/children";
  std::vector<pid_t> children;
  FILE* file = std::fopen(path.c_str(), "r");
  if (!file) return children;
  for (int child = 0; std::fscanf(file, "%d", &child) == 1;) children.push_back(child);
  std::fclose(file);
  return children;
}

void wait_for_state(const std::string& run) {
  const auto deadline = Clock::now() + std::chrono::seconds(120);
  while (newest_state(run).empty() && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ASSERT_FALSE(newest_state(run).empty()) << "the run does not begin";
}

TEST(Failure, ARankThatIsKilledEndsTheRunWhichThenEqualsAnUninterruptedOne) {
  const TrainingWorld world;
  const std::vector<std::string> settings = {"training.max_steps=120", "checkpoint.every=4"};
  const ProgramResult whole = run_program(on_two_ranks(world.arguments(world / "whole", settings)));
  ASSERT_EQ(whole.status, 0) << whole.error;

  const std::vector<std::string> words = world.arguments(world / "run", settings);
  RunningProgram program(on_two_ranks(words));
  wait_for_state(world / "run");
  const std::vector<pid_t> ranks = children_of(program.process());
  ASSERT_EQ(ranks.size(), 2u);
  const auto start = Clock::now();
  ::kill(ranks[1], SIGKILL);
  const ProgramResult killed = program.wait();
  EXPECT_LT(Clock::now() - start, kLimit);
  EXPECT_EQ(killed.status, 128 + SIGKILL);
  EXPECT_EQ(killed.out, "");
  EXPECT_THAT(killed.error, HasSubstr("rank 1 was killed by signal 9 (Killed); ending the other rank"));

  auto resumed = words;
  resumed.emplace_back("--resume");
  const ProgramResult rest = run_program(on_two_ranks(resumed));
  ASSERT_EQ(rest.status, 0) << rest.error;
  EXPECT_EQ(timeless_log(world / "run"), timeless_log(world / "whole"));
  for (const std::string& file : state_files())
    EXPECT_EQ(read_file(newest_state(world / "run") + "/" + file),
              read_file(newest_state(world / "whole") + "/" + file))
        << file;
}

TEST(Failure, ARankThatMeetsABrokenPictureIsNamedWithIt) {
  const TrainingWorld world;
  for (const auto& entry : fs::recursive_directory_iterator(world / "data/images"))
    if (entry.is_regular_file() && entry.path().string().find("train") != std::string::npos &&
        entry.path().filename().string().find("40") != std::string::npos)
      write_file_atomically(entry.path(), "no picture");
  const auto start = Clock::now();
  const ProgramResult result =
      run_program(on_two_ranks(world.arguments(world / "run", {"training.max_steps=60"})));
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(60));
  EXPECT_NE(result.status, 0);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.error, ContainsRegex("rank [01] ended with status [13]; ending the other rank"));
  EXPECT_THAT(result.error,
              ContainsRegex("rank [01](\\] fathom:| failed:) .*40.*expected a JPEG, PNG or WebP image"));
}

}  // namespace
}  // namespace fathom::train_failure_test
