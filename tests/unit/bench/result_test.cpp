#include "measure/result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "measure/peer_process.h"

namespace fathom::bench::result_test {
namespace {

using testing::ElementsAre;

TEST(Rounds, TakeTurnsAndTheFirstDoNotCount) {
  std::string order;
  double a = 0, b = 10;
  const auto times =
      take_turns({{"a", [&] { return order += 'a', ++a; }}, {"b", [&] { return order += 'b', ++b; }}},
                 {.warm_up = 1, .counted = 2});
  EXPECT_EQ(order, "ababab");
  EXPECT_THAT(times.at("a"), ElementsAre(2, 3));
  EXPECT_THAT(times.at("b"), ElementsAre(12, 13));
}

TEST(Rounds, SpreadIsThatOfRatiosRoundByRound) {
  Json line = Json::object();
  add_spread(line, "ratio", ratios({6, 8, 2}, {2, 4, 2}));
  EXPECT_EQ(line.at("ratio").as_double(), 2);
  EXPECT_EQ(line.at("ratio_10_percent").as_double(), 1);
  EXPECT_EQ(line.at("ratio_90_percent").as_double(), 2);
}

TEST(PeerProcess, AnswersLineByLine) {
  PeerProcess peer("sh -c 'echo ready; while read line; do echo \"<$line>\"; done'");
  EXPECT_EQ(peer.ask("one"), "<one>");
  EXPECT_EQ(peer.ask("two words"), "<two words>");
}

TEST(PeerProcess, SaysWhenItDoesNotStart) {
  EXPECT_THROW(PeerProcess("false"), Error);
}

}  // namespace
}  // namespace fathom::bench::result_test
