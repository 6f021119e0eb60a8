#include "distributed/failure_watch.h"

#include <algorithm>
#include <exception>

#include "base/error.h"

namespace fathom {
namespace {

constexpr const char* kFailed = "failed";
constexpr const char* kAcknowledged = "acknowledged";

std::string beat_key(int64_t rank) {
  return fmt::format("beat/{}", rank);
}
std::string left_key(int64_t rank) {
  return fmt::format("left/{}", rank);
}

FailureWatch::Clock::duration seconds(double value) {
  return std::chrono::duration_cast<FailureWatch::Clock::duration>(std::chrono::duration<double>(value));
}

}  // namespace

FailureWatch::FailureWatch(std::unique_ptr<KeyValueStore> store, Member self, const CollectiveConfig& config,
                           Actions actions)
    : store_(std::move(store)),
      self_(self),
      config_(config),
      actions_(std::move(actions)),
      exceptions_at_start_(std::uncaught_exceptions()),
      last_tick_(Clock::now()) {
  for (int64_t rank = 0; rank < self.size; ++rank) {
    const bool watched = self.rank == 0 ? rank != 0 : rank == 0;
    if (watched) peers_.push_back({.rank = rank, .heard = last_tick_});
  }
  watcher_ = std::thread([this] { run(); });
}

FailureWatch::~FailureWatch() {
  if (std::uncaught_exceptions() > exceptions_at_start_) {
    report(fmt::format("rank {} ended with an exception", self_.rank));
  }
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  watcher_.join();
  try {
    store_->set(left_key(self_.rank), "1");
    if (self_.rank == 0) linger();
  } catch (const std::exception&) {  // the store has gone with its rank: nobody is left to tell
  }
  {
    std::lock_guard lock(mutex_);
    gone_ = true;
  }
  changed_.notify_all();
  if (ender_.joinable()) ender_.join();
}

void FailureWatch::check() {
  std::unique_lock lock(mutex_);
  // A store that hangs keeps the watching thread in its request, so whoever waits judges by the clock.
  const bool hangs = !stopping_ && Clock::now() - last_tick_ >
                                       seconds(config_.lost_after_seconds + config_.heartbeat_seconds);
  if (!failure_ && !hangs) return;
  const std::string reason = failure_.value_or("rank 0 was lost: its rendezvous store does not answer");
  lock.unlock();
  settle(reason);
  fail(ErrorKind::kPeer, "{}", reason);
}

bool FailureWatch::has_failed() {
  std::lock_guard lock(mutex_);
  return failure_.has_value();
}

void FailureWatch::report(const std::string& reason) noexcept {
  std::string stands = reason;
  try {
    stands = store_->set_once(kFailed, reason);
  } catch (const std::exception&) {  // the store has gone: the others notice by themselves
  }
  settle(stands);
}

void FailureWatch::explain(const std::string& symptom) {
  const auto deadline = Clock::now() + seconds(config_.lost_after_seconds + 2 * config_.heartbeat_seconds);
  std::string reason = fmt::format("rank {}: {}", self_.rank, symptom);
  while (Clock::now() < deadline) {
    check();
    if (const auto departed = find_departed()) {
      reason = fmt::format("{} while rank {} still worked ({})", *departed, self_.rank, symptom);
      break;
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(100), [&] { return failure_.has_value(); });
  }
  report(reason);
  check();
  fail(ErrorKind::kPeer, "{}", reason);
}

void FailureWatch::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_ && !failure_) {
    lock.unlock();
    try {
      tick();
    } catch (const std::exception& error) {
      settle(fmt::format("rank 0 was lost: its rendezvous store has closed ({})", error.what()));
    }
    lock.lock();
    last_tick_ = Clock::now();
    changed_.wait_for(lock, seconds(config_.heartbeat_seconds), [&] { return stopping_ || failure_; });
  }
}

void FailureWatch::tick() {
  store_->add(beat_key(self_.rank), 1);
  if (const auto reason = store_->find(kFailed)) {
    store_->add(kAcknowledged, 1);
    return settle(*reason);
  }
  const auto now = Clock::now();
  // If this process itself stood still (suspended, swapped out), nobody's silence means anything.
  const bool stood_still = now - last_tick_ > seconds(config_.lost_after_seconds / 2);
  for (Peer& peer : peers_) {
    if (stood_still) peer.heard = now;
    listen_to(peer, now);
  }
}

void FailureWatch::listen_to(Peer& peer, Clock::time_point now) {
  if (peer.has_left) return;
  const int64_t beats = store_->add(beat_key(peer.rank), 0);
  if (beats != peer.beats) {
    peer.beats = beats;
    peer.heard = now;
    return;
  }
  peer.has_left = store_->find(left_key(peer.rank)).has_value();
  if (!peer.has_left && now - peer.heard > seconds(config_.lost_after_seconds)) {
    report(
        fmt::format("rank {} was lost: no sign of life for {:g} s", peer.rank, config_.lost_after_seconds));
  }
}

void FailureWatch::settle(const std::string& reason) {
  {
    std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = reason;
    ender_ = std::thread([this] { end_after_grace(); });
  }
  changed_.notify_all();
}

void FailureWatch::end_after_grace() {
  if (actions_.unblock) std::thread(actions_.unblock).detach();
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, seconds(config_.grace_seconds), [&] { return gone_; })) return;
  const std::string reason = *failure_;
  lock.unlock();
  if (actions_.end) actions_.end(reason);
}

std::optional<std::string> FailureWatch::find_departed() {
  try {
    for (int64_t rank = 0; rank < self_.size; ++rank) {
      if (rank != self_.rank && store_->find(left_key(rank)))
        return fmt::format("rank {} left the group", rank);
    }
  } catch (const std::exception&) {  // the watching thread notices the same and says what it means
  }
  return std::nullopt;
}

void FailureWatch::linger() {
  const auto all_have_left = [&] {
    return std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.has_left; });
  };
  while (!all_have_left()) {
    {
      std::lock_guard lock(mutex_);
      if (failure_) break;
    }
    tick();
    last_tick_ = Clock::now();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (!all_have_left()) wait_for_acknowledgements();
}

void FailureWatch::wait_for_acknowledgements() {
  const auto deadline =
      Clock::now() + seconds(std::min(2.5 * config_.heartbeat_seconds, config_.grace_seconds / 2));
  while (Clock::now() < deadline && store_->add(kAcknowledged, 0) < self_.size - 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace fathom
