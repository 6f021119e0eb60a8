// Local processes as ranks: starts them, watches them, ends them together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fathom {

struct LaunchOptions {
  int64_t num_ranks = 1;
  int64_t cpus_per_rank = 0;         ///< threads of each rank; 0 shares this machine's CPUs out evenly
  double stop_seconds = 2.5;         ///< from a rank's failure to SIGKILL for those that outlive it
  bool prefix_output = true;         ///< lines of ranks ≥ 1 begin with "[rank N] "
  std::vector<std::string> command;  ///< program and its arguments, the same for every rank
};

/// Runs `command` once per rank with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT
/// and OMP_NUM_THREADS set. Returns 0 when all ranks end with 0; otherwise the exit status of the first rank
/// that failed (128 + signal when it was killed), after naming it on standard error and ending the others. A
/// rank that ends with status 3 may do so because of another one: the others get a moment to end by
/// themselves, and one that then fails with another status is the one named.
/// SIGINT and SIGTERM are passed on to the ranks. Errors (kUsage): no command, ranks < 1; (kInternal): a
/// process could not be started.
int launch_ranks(const LaunchOptions& options);

}  // namespace fathom
