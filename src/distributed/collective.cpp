#include "distributed/collective.h"

#include "base/error.h"

namespace fathom {

void CollectiveConfig::fields(Fields& f) {
  f("join_seconds", join_seconds, "how long to wait for all ranks to join", {.low = 1});
  f("timeout_seconds", timeout_seconds, "longest time one collective operation may take", {.low = 1});
  f("heartbeat_seconds", heartbeat_seconds, "time between a rank's signs of life", {.low = 0.05, .high = 60});
  f("lost_after_seconds", lost_after_seconds, "a rank silent for so long counts as lost", {.low = 0.2});
  f("grace_seconds", grace_seconds, "time to leave after another rank failed, before being ended",
    {.low = 0.1});
}

void CollectiveConfig::validate() const {
  if (lost_after_seconds < 2 * heartbeat_seconds) {
    fail(ErrorKind::kConfig, "lost_after_seconds ({:g}) must be at least twice heartbeat_seconds ({:g})",
         lost_after_seconds, heartbeat_seconds);
  }
}

void run_rank(Collective& collective, const std::function<void()>& work) {
  try {
    work();
  } catch (const std::exception& error) {
    collective.abort(fmt::format("rank {} failed: {}", collective.rank(), error.what()));
    throw;
  }
}

}  // namespace fathom
