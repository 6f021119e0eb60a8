#include "distributed/failure_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>

#include "base/error.h"

namespace fathom::failure_watch_test {
namespace {

using testing::HasSubstr;

/// What all ranks of a test share; `closed` stands for a store whose server has died.
struct SharedMap {
  std::mutex mutex;
  std::map<std::string, std::string> values;
  bool closed = false;
};

class MapStore final : public KeyValueStore {
 public:
  explicit MapStore(std::shared_ptr<SharedMap> map) : map_(std::move(map)) {}
  void set(const std::string& key, const std::string& value) override { open()->values[key] = value; }
  std::string set_once(const std::string& key, const std::string& value) override {
    return open()->values.try_emplace(key, value).first->second;
  }
  int64_t add(const std::string& key, int64_t delta) override {
    auto map = open();
    std::string& value = map->values[key];
    value = std::to_string((value.empty() ? 0 : std::stoll(value)) + delta);
    return std::stoll(value);
  }
  std::optional<std::string> find(const std::string& key) override {
    auto map = open();
    const auto found = map->values.find(key);
    return found == map->values.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  struct Locked {
    std::unique_lock<std::mutex> lock;
    SharedMap* map;
    SharedMap* operator->() { return map; }
  };
  Locked open() {
    Locked locked{std::unique_lock(map_->mutex), map_.get()};
    if (map_->closed) throw std::runtime_error("connection refused");
    return locked;
  }
  std::shared_ptr<SharedMap> map_;
};

CollectiveConfig quick() {
  return {.heartbeat_seconds = 0.05, .lost_after_seconds = 0.5, .grace_seconds = 0.4};
}

struct Group {
  /// Shared with the watches' threads: the one that unblocks is waited for by nobody.
  struct Counts {
    std::atomic<int> unblocked = 0;
    std::atomic<int> ended = 0;
  };
  std::shared_ptr<SharedMap> map = std::make_shared<SharedMap>();
  std::shared_ptr<Counts> counts = std::make_shared<Counts>();

  std::unique_ptr<FailureWatch> join(int64_t rank, int64_t size) {
    return std::make_unique<FailureWatch>(
        std::make_unique<MapStore>(map), FailureWatch::Member{rank, size}, quick(),
        FailureWatch::Actions{.unblock = [counts = counts] { ++counts->unblocked; },
                              .end = [counts = counts](const std::string&) { ++counts->ended; }});
  }
};

void wait_seconds(double value) {
  std::this_thread::sleep_for(std::chrono::duration<double>(value));
}

std::string failure_of(FailureWatch& watch) {
  try {
    watch.check();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kPeer);
    return error.what();
  }
  return "";
}

TEST(FailureWatch, LetsAHealthyGroupBe) {
  Group group;
  auto first = group.join(0, 2);
  auto second = group.join(1, 2);
  wait_seconds(0.8);  // longer than a silent rank may live
  EXPECT_EQ(failure_of(*first), "");
  EXPECT_EQ(failure_of(*second), "");
  second.reset();
  wait_seconds(0.8);  // one that left in good order is not missed
  EXPECT_EQ(failure_of(*first), "");
  first.reset();
  EXPECT_EQ(group.counts->unblocked, 0);
  EXPECT_EQ(group.counts->ended, 0);
}

TEST(FailureWatch, FirstRankStaysUntilTheOthersHaveLeft) {
  Group group;
  auto first = group.join(0, 2);
  auto second = group.join(1, 2);
  std::atomic<bool> first_has_left = false;
  std::thread leaving([&] {
    first.reset();
    first_has_left = true;
  });
  wait_seconds(0.2);
  EXPECT_FALSE(first_has_left);
  second.reset();
  leaving.join();
  EXPECT_TRUE(first_has_left);
}

TEST(FailureWatch, TellsEveryRankTheFirstReason) {
  Group group;
  auto first = group.join(0, 3);
  auto second = group.join(1, 3);
  auto third = group.join(2, 3);
  second->report("rank 1 failed: out of coffee");
  third->report("rank 2 failed: a consequence");
  wait_seconds(0.3);
  for (auto* watch : {first.get(), second.get(), third.get()}) {
    EXPECT_EQ(failure_of(*watch), "rank 1 failed: out of coffee");
  }
  EXPECT_EQ(group.counts->unblocked, 3);
}

TEST(FailureWatch, NamesASilentRank) {
  Group group;
  auto first = group.join(0, 3);
  auto second = group.join(1, 3);  // rank 2 never beats
  wait_seconds(1.0);
  EXPECT_EQ(failure_of(*first), "rank 2 was lost: no sign of life for 0.5 s");
  EXPECT_EQ(failure_of(*second), "rank 2 was lost: no sign of life for 0.5 s");
}

TEST(FailureWatch, NoticesThatTheFirstRankIsSilent) {
  Group group;
  auto second = group.join(1, 2);  // rank 0 never beats, though the store answers
  wait_seconds(1.0);
  EXPECT_EQ(failure_of(*second), "rank 0 was lost: no sign of life for 0.5 s");
}

TEST(FailureWatch, NoticesThatTheStoreHasClosed) {
  Group group;
  auto second = group.join(1, 2);
  wait_seconds(0.1);
  {
    std::lock_guard lock(group.map->mutex);
    group.map->closed = true;
  }
  wait_seconds(0.2);
  EXPECT_THAT(failure_of(*second),
              HasSubstr("rank 0 was lost: its rendezvous store has closed (connection refused)"));
}

TEST(FailureWatch, EndsARankThatDoesNotLeave) {
  Group group;
  auto second = group.join(1, 2);
  second->report("rank 1 failed");
  wait_seconds(0.8);
  EXPECT_EQ(group.counts->ended, 1);
}

TEST(FailureWatch, SparesARankThatLeavesInTime) {
  Group group;
  auto second = group.join(1, 2);
  second->report("rank 1 failed");
  second.reset();
  EXPECT_EQ(group.counts->ended, 0);
}

TEST(FailureWatch, ExplainsAFailedOperationByWhoeverLeft) {
  Group group;
  auto first = group.join(0, 2);
  group.join(1, 2).reset();
  try {
    first->explain("all_reduce: connection closed");
    FAIL() << "explain returned";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "rank 1 left the group while rank 0 still worked (all_reduce: connection closed)");
  }
}

TEST(FailureWatch, ReportsARankThatUnwinds) {
  Group group;
  auto first = group.join(0, 2);
  try {
    auto second = group.join(1, 2);
    throw std::runtime_error("x");
  } catch (const std::runtime_error&) {
  }
  wait_seconds(0.2);
  EXPECT_EQ(failure_of(*first), "rank 1 ended with an exception");
}

}  // namespace
}  // namespace fathom::failure_watch_test
