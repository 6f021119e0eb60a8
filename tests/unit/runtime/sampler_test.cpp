#include "runtime/sampler.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "base/utf8_stream.h"

namespace fathom::sampler_test {
namespace {

std::map<int32_t, double> shares(const std::vector<float>& logits, const SamplingConfig& config,
                                 int draws = 20000) {
  Random random(7);
  std::map<int32_t, double> found;
  for (int i = 0; i < draws; ++i) found[sample_token(logits, config, random)] += 1.0 / draws;
  return found;
}

TEST(Sampler, DrawsTheSoftmax) {
  const std::vector<float> logits = {0, std::log(2.0f), std::log(5.0f)};
  auto found = shares(logits, {});
  EXPECT_NEAR(found[0], 0.125, 0.01);
  EXPECT_NEAR(found[1], 0.25, 0.01);
  EXPECT_NEAR(found[2], 0.625, 0.01);
}

TEST(Sampler, TemperatureSharpens) {
  const std::vector<float> logits = {0, std::log(2.0f)};
  EXPECT_NEAR(shares(logits, {.temperature = 0.5})[1], 0.8, 0.01);
  EXPECT_EQ(shares(logits, {.temperature = 0}, 100).begin()->first, 1);
  EXPECT_EQ(shares(logits, {.temperature = 0}, 100).size(), 1u);
}

TEST(Sampler, TopKAndTopPCutTheTail) {
  const std::vector<float> logits = {std::log(1.0f), std::log(6.0f), std::log(3.0f)};
  auto two = shares(logits, {.top_k = 2});
  EXPECT_EQ(two.count(0), 0u);
  EXPECT_NEAR(two[1], 2.0 / 3, 0.01);
  // 0.6 does not reach 0.7, 0.6 + 0.3 does.
  EXPECT_EQ(shares(logits, {.top_p = 0.7}).size(), 2u);
  EXPECT_EQ(shares(logits, {.top_p = 0.55}).size(), 1u);
  EXPECT_EQ(shares(logits, {.top_p = 0.0}).size(), 1u);
}

TEST(Sampler, EqualLogitsGoByTheSmallerId) {
  Random random(1);
  EXPECT_EQ(sample_token(std::vector<float>{1, 3, 3, 3}, {.temperature = 0}, random), 1);
  EXPECT_EQ(sample_token(std::vector<float>{3, 3, 3, 1}, {.top_k = 1}, random), 0);
}

TEST(Sampler, NeverChoosesWhatIsNoNumber) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  Random random(1);
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(sample_token(std::vector<float>{nan, -infinity, 0.5f, nan}, {}, random), 2);
  EXPECT_THROW(sample_token(std::vector<float>{nan, nan}, {}, random), Error);
}

RC_GTEST_PROP(Utf8Stream, ValidTextComesOutWholeHoweverItIsCut, ()) {
  const std::vector<std::string> pieces = {"a", "é", "漢", "🦊", "\n", "ß"};
  std::string text;
  for (const int64_t piece : *rc::gen::container<std::vector<int64_t>>(rc::gen::inRange<int64_t>(0, 6)))
    text += pieces[piece];
  Utf8Stream stream;
  std::string shown;
  for (size_t i = 0; i < text.size();) {
    const auto size = *rc::gen::inRange<size_t>(1, 4);
    const std::string part = stream.push(std::string_view(text).substr(i, size));
    RC_ASSERT(part.empty() || (static_cast<unsigned char>(part[0]) & 0xC0) != 0x80);
    shown += part;
    i += size;
  }
  shown += stream.finish();
  RC_ASSERT(shown == text);
}

TEST(Utf8Stream, ReplacesBrokenBytes) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xFF"
                        "b"),
            "a\uFFFDb");
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.push("x"), "\uFFFDx");
  EXPECT_EQ(stream.push("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(stream.push("\xF0\x9F"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

}  // namespace
}  // namespace fathom::sampler_test
