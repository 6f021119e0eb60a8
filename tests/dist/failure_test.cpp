// A rank that fails ends all within 10 s, and everybody names it. No launcher helps here, except in the last
// test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <torch/torch.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "dist/bodies.h"
#include "dist/ranks.h"
#include "distributed/launcher.h"

namespace fathom::test {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr double kLimitSeconds = 10;
constexpr double kStartSeconds = 10;  ///< of two programs on a busy machine
constexpr int kFailingStep = 5;

/// What the culprit does first, so that the time of its failure is known.
void say_accident() {
  std::fputs("accident\n", stderr);
}

/// Endless training, in which `rank` meets `accident` at some step.
void train_until(Collective& collective, int64_t rank, const std::function<void()>& accident) {
  at::Tensor x = torch::ones({1000}, rank_device());
  for (int step = 0;; ++step) {
    if (step == kFailingStep && collective.rank() == rank) {
      say_accident();
      accident();
    }
    collective.all_reduce(x, ReduceOp::kMean);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

int64_t last_rank(const Collective& collective) {
  return collective.size() - 1;
}

/// Expects that all ranks but `culprit` ended by themselves in time with status 3, saying `reason`.
void expect_named(const std::vector<RankOutcome>& outcomes, int64_t culprit, const std::string& reason) {
  for (size_t rank = 0; rank < outcomes.size(); ++rank) {
    if (static_cast<int64_t>(rank) == culprit) continue;
    EXPECT_EQ(outcomes[rank].status, 3) << "rank " << rank << ": " << outcomes[rank].errors;
    EXPECT_THAT(outcomes[rank].errors, HasSubstr(reason)) << "rank " << rank;
    EXPECT_THAT(outcomes[rank].errors, Not(HasSubstr("frame #"))) << "a stack trace";
    EXPECT_LT(outcomes[rank].seconds - outcomes[culprit].first_word_seconds, kLimitSeconds)
        << "rank " << rank;
  }
}

}  // namespace

void throw_on_last_rank(Collective& collective) {
  train_until(collective, last_rank(collective), [] { fail(ErrorKind::kData, "picture 17 is broken"); });
}
void exit_on_last_rank(Collective& collective) {
  train_until(collective, last_rank(collective), [] { _exit(9); });
}
void kill_last_rank(Collective& collective) {
  train_until(collective, last_rank(collective), [] { kill(getpid(), SIGKILL); });
}
void kill_first_rank(Collective& collective) {
  train_until(collective, 0, [] { kill(getpid(), SIGKILL); });
}
void stop_first_rank(Collective& collective) {
  train_until(collective, 0, [] { kill(getpid(), SIGSTOP); });
}
void kill_while_others_compute(Collective& collective) {
  if (collective.rank() == last_rank(collective)) {
    say_accident();
    kill(getpid(), SIGKILL);
  }
  while (true) {  // never returns to the collective
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}
void leave_early(Collective& collective) {
  if (collective.rank() == last_rank(collective)) return say_accident();
  train_until(collective, -1, [] {});
}

TEST(Failure, OfARankThatThrows) {
  const auto outcomes = run_ranks(3, "throw_on_last_rank");
  expect_named(outcomes, 2, "rank 2 failed: picture 17 is broken");
  EXPECT_EQ(outcomes[2].status, 1);  // its own fault keeps its own status
  EXPECT_LT(outcomes[2].seconds - outcomes[2].first_word_seconds, kLimitSeconds);
}

TEST(Failure, OfARankThatExits) {
  const auto outcomes = run_ranks(3, "exit_on_last_rank");
  expect_named(outcomes, 2, "rank 2 was lost");
  EXPECT_EQ(outcomes[2].status, 9);
}

TEST(Failure, OfARankThatIsKilled) {
  expect_named(run_ranks(3, "kill_last_rank"), 2, "rank 2 was lost");
}

TEST(Failure, OfTheFirstRankWhichServesTheStore) {
  expect_named(run_ranks(3, "kill_first_rank"), 0, "rank 0 was lost");
}

TEST(Failure, OfAFirstRankThatHangs) {
  expect_named(run_ranks(2, "stop_first_rank", {.not_awaited = {0}}), 0, "rank 0 was lost");
}

TEST(Failure, EndsRanksThatAreBusyElsewhere) {
  expect_named(run_ranks(2, "kill_while_others_compute"), 1, "rank 1 was lost");
}

TEST(Failure, OfARankThatLeavesEarly) {
  const auto outcomes = run_ranks(2, "leave_early");
  expect_named(outcomes, 1, "rank 1 left the group while rank 0 still worked");
  EXPECT_EQ(outcomes[1].status, 0);
}

TEST(Failure, IsNamedByTheLauncher) {
  const auto started = std::chrono::steady_clock::now();
  setenv("FATHOM_TEST_BODY", "kill_last_rank", 1);
  testing::internal::CaptureStderr();
  const int status = launch_ranks({.num_ranks = 3, .cpus_per_rank = 1, .command = {own_path()}});
  const std::string errors = testing::internal::GetCapturedStderr();
  unsetenv("FATHOM_TEST_BODY");
  EXPECT_EQ(status, 128 + SIGKILL);
  EXPECT_THAT(errors, HasSubstr("rank 2 was killed by signal 9 (Killed); ending the other 2 ranks"));
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::duration<double>(kLimitSeconds));
}

TEST(Failure, OfARankThatHangsEndsTheLaunch) {
  const auto started = std::chrono::steady_clock::now();
  setenv("FATHOM_TEST_BODY", "stop_first_rank", 1);
  testing::internal::CaptureStderr();
  const int status = launch_ranks({.num_ranks = 2, .cpus_per_rank = 1, .command = {own_path()}});
  const std::string errors = testing::internal::GetCapturedStderr();
  unsetenv("FATHOM_TEST_BODY");
  EXPECT_EQ(status, 3);
  EXPECT_THAT(errors, HasSubstr("rank 0 was lost"));
  EXPECT_LT(std::chrono::steady_clock::now() - started,
            std::chrono::duration<double>(kStartSeconds + kLimitSeconds));
}

TEST(Failure, IsAbsentWhenAllGoesWellUnderTheLauncher) {
  setenv("FATHOM_TEST_BODY", "check_operations", 1);
  const int status = launch_ranks({.num_ranks = 3, .cpus_per_rank = 1, .command = {own_path()}});
  unsetenv("FATHOM_TEST_BODY");
  EXPECT_EQ(status, 0);
}

}  // namespace fathom::test
