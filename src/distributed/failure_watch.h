// Notices ranks that fail, die or fall silent, and sees to it that this rank does not outlive them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "distributed/collective.h"
#include "distributed/key_value_store.h"

namespace fathom {

/// One thread per rank that beats in the shared store and reads there whether a rank has failed. Rank 0
/// watches everybody's beats, the others watch rank 0's, so that the store carries O(ranks) messages per
/// beat. The first reason written stands for all ranks.
///
/// The destructor leaves the group in good order (or, while an exception unwinds, as failed). Rank 0, which
/// as a rule serves the store, stays until the others have left or failed. Destroy it after what it watches
/// over.
class FailureWatch {
 public:
  using Clock = std::chrono::steady_clock;
  struct Member {
    int64_t rank;
    int64_t size;
  };
  struct Actions {
    std::function<void()> unblock;  ///< once, after a failure, on a thread of its own; may hang
    std::function<void(const std::string& reason)> end;  ///< this rank outlived its grace: end the process
  };

  FailureWatch(std::unique_ptr<KeyValueStore> store, Member self, const CollectiveConfig& config,
               Actions actions);
  ~FailureWatch();
  FailureWatch(const FailureWatch&) = delete;
  FailureWatch& operator=(const FailureWatch&) = delete;

  /// Throws kPeer with the reason when the group has failed. Any thread.
  void check();
  bool has_failed();
  /// This rank knows of a failure (its own, as a rule).
  void report(const std::string& reason) noexcept;
  /// An operation failed for a cause unknown to it: waits until the cause is known (at most until a silent
  /// rank counts as lost), and throws kPeer naming the rank, or `symptom` when every rank seems well.
  [[noreturn]] void explain(const std::string& symptom);

 private:
  struct Peer {
    int64_t rank;
    int64_t beats = 0;
    Clock::time_point heard;
    bool has_left = false;
  };

  void run();
  void tick();
  void listen_to(Peer& peer, Clock::time_point now);
  void settle(const std::string& reason);
  void end_after_grace();
  std::optional<std::string> find_departed();
  void linger();
  void wait_for_acknowledgements();

  const std::unique_ptr<KeyValueStore> store_;
  const Member self_;
  const CollectiveConfig config_;
  const Actions actions_;
  const int exceptions_at_start_;
  std::vector<Peer> peers_;  ///< used by the watching thread, and once it has ended by the destructor

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<std::string> failure_;
  Clock::time_point last_tick_;
  bool stopping_ = false;  ///< the watching thread should end
  bool gone_ = false;      ///< this rank has left
  std::thread ender_;
  std::thread watcher_;
};

}  // namespace fathom
