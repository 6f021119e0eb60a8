#include "distributed/launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/error.h"

namespace fathom::launcher_test {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Outcome {
  int status;
  std::string out;
  std::string err;
};

/// Runs a shell script as every rank.
Outcome launch(int64_t num_ranks, const std::string& script, LaunchOptions options = {}) {
  options.num_ranks = num_ranks;
  options.command = {"/bin/sh", "-c", script};
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int status = launch_ranks(options);
  return {status, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
}

TEST(Launcher, TellsEveryRankItsPlace) {
  const auto outcome = launch(
      2,
      "echo $RANK of $WORLD_SIZE, local $LOCAL_RANK of $LOCAL_WORLD_SIZE at $MASTER_ADDR, $OMP_NUM_THREADS",
      {.cpus_per_rank = 3});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.out, HasSubstr("0 of 2, local 0 of 2 at 127.0.0.1, 3\n"));
  EXPECT_THAT(outcome.out, HasSubstr("[rank 1] 1 of 2, local 1 of 2 at 127.0.0.1, 3\n"));
}

TEST(Launcher, HandsTheFirstRankASocket) {
  const auto outcome =
      launch(2, "echo \"$RANK: $(readlink /proc/$$/fd/${FATHOM_STORE_FD:-none} || echo none)\"");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.out, HasSubstr("0: socket:"));
  EXPECT_THAT(outcome.out, HasSubstr("1: none"));
}

TEST(Launcher, KeepsLinesOfRanksWhole) {
  const auto outcome = launch(3, "for i in 1 2 3; do printf 'part '; printf 'end\\n'; done; printf last");
  EXPECT_EQ(outcome.status, 0);
  for (const char* rank : {"[rank 1] ", "[rank 2] "}) {
    EXPECT_THAT(outcome.out, HasSubstr(std::string(rank) + "part end\n"));
    EXPECT_THAT(outcome.out, HasSubstr(std::string(rank) + "last\n"));
  }
}

TEST(Launcher, NamesTheRankThatFailsAndEndsTheOthers) {
  const auto started = std::chrono::steady_clock::now();
  const auto outcome = launch(3, "if [ $RANK = 1 ]; then sleep 0.2; exit 7; fi; exec sleep 60");
  EXPECT_EQ(outcome.status, 7);
  EXPECT_THAT(outcome.err, HasSubstr("rank 1 ended with status 7; ending the other 2 ranks"));
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(10));
}

TEST(Launcher, NamesTheRankAtFaultBeforeThoseThatEndedBecauseOfIt) {
  const auto outcome = launch(3, "if [ $RANK = 0 ]; then sleep 0.4; exit 1; fi; exit 3");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("rank 0 ended with status 1"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("ended with status 3")));
}

TEST(Launcher, NamesARankWithStatus3WhenNoOtherFails) {
  const auto running = launch(2, "if [ $RANK = 1 ]; then exit 3; fi; exec sleep 60");
  EXPECT_EQ(running.status, 3);
  EXPECT_THAT(running.err, HasSubstr("rank 1 ended with status 3; ending the other rank"));
  const auto finished = launch(2, "if [ $RANK = 1 ]; then exit 3; fi");
  EXPECT_EQ(finished.status, 3);
  EXPECT_THAT(finished.err, HasSubstr("rank 1 ended with status 3\n"));
}

TEST(Launcher, NamesTheSignalThatKilledARank) {
  const auto outcome = launch(2, "if [ $RANK = 1 ]; then kill -9 $$; fi; exec sleep 60");
  EXPECT_EQ(outcome.status, 128 + SIGKILL);
  EXPECT_THAT(outcome.err, HasSubstr("rank 1 was killed by signal 9 (Killed); ending the other rank"));
}

TEST(Launcher, KillsRanksThatIgnoreBeingAsked) {
  const auto outcome = launch(
      2,
      "if [ $RANK = 0 ]; then sleep 0.2; exit 3; fi; trap 'echo asked' TERM; while true; do sleep 0.05; done",
      {.stop_seconds = 0.5});
  EXPECT_EQ(outcome.status, 3);
  EXPECT_THAT(outcome.out, HasSubstr("[rank 1] asked"));
}

TEST(Launcher, EndsGrandchildrenToo) {
  const auto outcome =
      launch(2, "if [ $RANK = 0 ]; then sleep 0.2; exit 3; fi; sleep 6543 & echo child $!; wait");
  const size_t at = outcome.out.find("child ");
  ASSERT_NE(at, std::string::npos);
  const pid_t grandchild = std::stoi(outcome.out.substr(at + 6));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const std::string state = "/proc/" + std::to_string(grandchild) + "/status";
  FILE* file = fopen(state.c_str(), "r");
  std::string text(4096, '\0');
  if (file) {
    text.resize(fread(text.data(), 1, text.size(), file));
    fclose(file);
    EXPECT_THAT(text, HasSubstr("zombie"));
  }
}

TEST(Launcher, PassesSignalsOn) {
  const auto outcome =
      launch(2,
             "trap 'echo saved; exit 0' TERM; if [ $RANK = 0 ]; then sleep 0.3; kill -TERM $PPID; fi;"
             "while true; do sleep 0.05; done");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.out, HasSubstr("[rank 1] saved"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("ended")));
}

TEST(Launcher, RefusesNothingToDo) {
  EXPECT_THROW(launch_ranks({.num_ranks = 0, .command = {"true"}}), Error);
  EXPECT_THROW(launch_ranks({.num_ranks = 2}), Error);
}

TEST(Launcher, SaysThatAProgramCannotRun) {
  testing::internal::CaptureStderr();
  const int status = launch_ranks({.num_ranks = 1, .command = {"/no/such/program"}});
  const std::string errors = testing::internal::GetCapturedStderr();
  EXPECT_EQ(status, 127);
  EXPECT_THAT(errors, HasSubstr("cannot run"));
}

}  // namespace
}  // namespace fathom::launcher_test
