#include "base/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace fathom::config_test {
namespace {

using testing::HasSubstr;

enum class Shape { kCosine, kLinear };

struct Inner {
  double rate = 0.5;
  Shape shape = Shape::kCosine;
  std::vector<int64_t> depths = {2, 2};

  void fields(Fields& f) {
    f("rate", rate, "a share", {.low = 0, .high = 1});
    f.choice("shape", shape, "the curve", {{"cosine", Shape::kCosine}, {"linear", Shape::kLinear}});
    f("depths", depths, "blocks a stage", {.low = 1});
  }
  void validate() const {
    if (shape == Shape::kLinear && rate == 0) fail(ErrorKind::kConfig, "a linear shape needs a rate");
  }
};

struct Outer {
  bool fast = false;
  int64_t steps = 100;
  std::string name = "run";
  Inner inner;
  std::vector<Inner> parts;

  void fields(Fields& f) {
    f("fast", fast, "whether to hurry");
    f("steps", steps, "steps to take", {.low = 1});
    f("name", name, "what it is called");
    f.group("inner", inner, "the inner part");
    f.list("parts", parts, "the parts");
  }
};

Outer read(const std::string& text) {
  return read_config<Outer>(parse_toml(text, "recipe.toml"));
}

std::string read_error_of(const std::string& text) {
  try {
    read(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    return error.what();
  }
  return "accepted";
}

TEST(Config, ReadsValuesAndKeepsDefaults) {
  const Outer outer = read(R"(
    steps = 7
    [inner]
    shape = "linear"
    depths = [1, 2, 3]
    [[parts]]
    rate = 0.25
    [[parts]]
    shape = "linear"
  )");
  EXPECT_EQ(outer.steps, 7);
  EXPECT_EQ(outer.name, "run");
  EXPECT_EQ(outer.inner.shape, Shape::kLinear);
  EXPECT_EQ(outer.inner.depths, (std::vector<int64_t>{1, 2, 3}));
  ASSERT_EQ(outer.parts.size(), 2u);
  EXPECT_EQ(outer.parts[0].rate, 0.25);
  EXPECT_EQ(outer.parts[1].shape, Shape::kLinear);
}

TEST(Config, NamesFileLineAndNearestKey) {
  EXPECT_EQ(read_error_of("fast = true\nstep = 3\n"),
            "recipe.toml:2: step: unknown key; did you mean \"steps\"?");
  EXPECT_EQ(read_error_of("[inner]\n\nrat = 1\n"),
            "recipe.toml:3: inner.rat: unknown key; did you mean \"rate\"?");
  EXPECT_EQ(read_error_of("[zebra]\nx = 1\n"), "recipe.toml:1: zebra: unknown key");
  EXPECT_EQ(read_error_of("[[parts]]\nrates = 1\n"),
            "recipe.toml:2: parts[0].rates: unknown key; did you mean \"rate\"?");
}

TEST(Config, RejectsTypesRangesAndChoices) {
  EXPECT_THAT(read_error_of("steps = \"many\""), HasSubstr("steps: expected an integer, got string"));
  EXPECT_THAT(read_error_of("steps = 1.5"), HasSubstr("expected an integer"));
  EXPECT_THAT(read_error_of("steps = 0"), HasSubstr("expected at least 1, got 0"));
  EXPECT_THAT(read_error_of("[inner]\nrate = 2"),
              HasSubstr("recipe.toml:2: inner.rate: expected a value from 0 to 1"));
  EXPECT_THAT(read_error_of("[inner]\nrate = nan"), HasSubstr("finite"));
  EXPECT_THAT(read_error_of("[inner]\nshape = \"round\""),
              HasSubstr("expected one of \"cosine\", \"linear\""));
  EXPECT_THAT(read_error_of("[inner]\ndepths = [1, 0]"), HasSubstr("at least 1"));
  EXPECT_THAT(read_error_of("inner = 3"), HasSubstr("expected a table"));
  EXPECT_EQ(read_error_of("fast = true\n[inner]\nrate = 0\nshape = \"linear\""),
            "recipe.toml:2: inner: a linear shape needs a rate");
  std::string ones = "1";
  for (int i = 0; i < 5000; ++i) ones += ",1";
  EXPECT_EQ(read_error_of("steps = [" + ones + "]"),
            "recipe.toml:1: steps: expected an integer, got array [" + ones.substr(0, 59) + "…");
  EXPECT_THAT(read_error_of("steps = = 1"), HasSubstr("recipe.toml:1:"));
}

TEST(Config, KeepsCharactersBeyondAsciiToStringsAndComments) {
  EXPECT_EQ(read("# grüße\nname = \"日本\"").name, "日本");
  EXPECT_EQ(read("\xef\xbb\xbfname = 'ü'").name, "ü");
  EXPECT_EQ(read("name = \"\"\"a\\\n  \xef\xbb\xaf\"\"\"").name, "a\xef\xbb\xaf");
  EXPECT_THAT(read_error_of("steps = 3\n\xef\xbb\xbe = 3"), HasSubstr("recipe.toml:2:"));
  EXPECT_THAT(read_error_of("name = \"\"\"\\\xef\xb8\x80\"\"\""), HasSubstr("recipe.toml:1:"));
  EXPECT_THAT(read_error_of("steps = 2an\"\xef\xb9\xbf\""), HasSubstr("recipe.toml:1:"));
}

TEST(Config, OverridesReplaceAndAreChecked) {
  ConfigTree tree = parse_toml("steps = 3", "recipe.toml");
  apply_override(tree, "inner.rate=0.75");
  apply_override(tree, "name=bare word");
  apply_override(tree, "fast=true");
  apply_override(tree, "inner.depths=[4,5]");
  const Outer outer = read_config<Outer>(tree);
  EXPECT_EQ(outer.inner.rate, 0.75);
  EXPECT_EQ(outer.name, "bare word");
  EXPECT_TRUE(outer.fast);
  EXPECT_EQ(outer.inner.depths, (std::vector<int64_t>{4, 5}));
  for (const char* nonsense : {"steps", "=3", "inner..rate=1", ".=1", "inner.=1"}) {
    try {
      apply_override(tree, nonsense);
      FAIL() << nonsense;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_EQ(std::string(error.what()), "--set expects key=value, got \"" + std::string(nonsense) + "\"");
    }
  }
  apply_override(tree, "inner.raet=1");
  EXPECT_THROW(read_config<Outer>(tree), Error);
}

TEST(Config, RecordReadsBackThroughJsonAndToml) {
  Outer outer = read("steps = 9\n[inner]\nrate = 0.125\n[[parts]]\nshape = \"linear\"\n");
  const ConfigTree again = parse_toml(json_to_toml(config_to_json(outer)), "record");
  EXPECT_EQ(config_to_json(read_config<Outer>(again)), config_to_json(outer));
}

TEST(Config, ReferenceListsEveryKey) {
  const std::string page = config_reference<Outer>();
  for (const char* part :
       {"`steps`", "`[inner]`", "`rate`", "0 to 1", "`[[parts]]`", "\"cosine\", \"linear\""})
    EXPECT_THAT(page, HasSubstr(part));
}

}  // namespace
}  // namespace fathom::config_test
