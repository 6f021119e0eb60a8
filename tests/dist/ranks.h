// Real ranks for tests: this very program, run again once per rank.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "distributed/collective.h"

namespace fathom::test {

/// What one rank does. Throws when something is not as it should be.
using RankBody = std::function<void(Collective&)>;

/// The bodies by name: in main.cpp.
const RankBody& find_body(const std::string& name);

struct RankOutcome {
  int status;                      ///< exit status, or 128 + signal
  std::string errors;              ///< what it wrote on standard error
  double seconds;                  ///< from start to end
  double first_word_seconds = -1;  ///< from start to its first word on standard error
};

struct RankOptions {
  std::string device = "cpu";
  double limit_seconds = 60;         ///< then a rank that still runs is killed (status 137)
  std::vector<int64_t> not_awaited;  ///< ranks that are killed once all others have ended
};

/// Runs `body` as `size` ranks without a launcher that would look after them.
std::vector<RankOutcome> run_ranks(int64_t size, const std::string& body, const RankOptions& options = {});

/// In a rank: where its tensors belong (the GPU of its local rank, when the test asks for GPUs).
at::Device rank_device();

/// Expects every rank to end with 0.
void expect_success(const std::vector<RankOutcome>& outcomes);

/// The path of this program.
std::string own_path();

}  // namespace fathom::test
