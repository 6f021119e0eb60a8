// What a run takes over from finished models, and what it says of the rest.
#include "train/initial_weights.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <fstream>

#include "../models/model_fixture.h"
#include "models/model_folder.h"
#include "nn/init.h"

namespace fathom::initial_weights_test {
namespace {

using namespace testing;
using ::testing::HasSubstr;

class InitialWeights : public ::testing::Test {
 protected:
  InitialWeights() {
    Swin vision(small_swin());
    fill_by_formula(vision);
    save_model_folder(folder_ / "vision", vision);
    LanguageModel text(small_language());
    fill_by_formula(text);
    save_model_folder(folder_ / "text", text, {.tokenizer_json = ""});
    init_parameters(*model_, 5);
  }
  InitReport take(const std::vector<InitRule>& rules) { return take_initial_weights(*model_, rules); }
  at::Tensor parameter(const std::string& name) { return model_->named_parameters()[name]; }
  std::string reason_of(const InitReport& report, const std::string& name) const {
    for (const auto& left : report.left)
      if (left.name == name) return left.reason;
    return "not left";
  }

  TemporaryFolder folder_;
  DualTower model_{small_dual_tower()};
};

TEST_F(InitialWeights, ComeFromSeveralModels) {
  const auto scale = parameter("log_scale").clone(), projection = parameter("text_projection.weight").clone();
  const InitReport report = take({{.from = folder_ / "vision", .as = "vision.*"},
                                  {.from = folder_ / "text", .take = "blocks.*", .as = "text.blocks.*"}});
  EXPECT_TRUE(
      at::equal(parameter("vision.patch_embed.weight"),
                formula_weight("patch_embed.weight", parameter("vision.patch_embed.weight").sizes())));
  EXPECT_TRUE(at::equal(parameter("text.blocks.1.mlp.down.weight"),
                        formula_weight("blocks.1.mlp.down.weight", {24, 40})));
  EXPECT_TRUE(at::equal(parameter("log_scale"), scale));
  EXPECT_TRUE(at::equal(parameter("text_projection.weight"), projection));
  EXPECT_EQ(reason_of(report, "text.embedding"), "no rule gives it");
  EXPECT_EQ(reason_of(report, "text.blocks.1.mlp.down.weight"), "not left");
  EXPECT_EQ(report.loaded.size() + report.left.size(), model_->named_parameters().size());
  EXPECT_EQ(report.loaded.front().from, folder_ / "vision: patch_embed.weight");
  EXPECT_THAT(report.to_text(), HasSubstr("no rule gives it: log_scale, "));
  EXPECT_EQ(report.to_json().at("loaded").size(), report.loaded.size());
}

TEST_F(InitialWeights, SayWhatDidNotFit) {
  auto config = small_language();
  config.mlp_dim = 48;
  LanguageModel wider(config);
  fill_by_formula(wider);
  save_model_folder(folder_ / "wider", wider);
  const InitReport report = take({{.from = folder_ / "wider", .as = "text.*"}});
  EXPECT_EQ(reason_of(report, folder_ / "wider: blocks.0.mlp.down.weight"),
            "it is [24, 48], the model's [24, 40]");
  EXPECT_EQ(reason_of(report, "text.blocks.0.mlp.down.weight"), "no rule gives it");
  EXPECT_EQ(reason_of(report, "text.norm.weight"), "not left");
}

TEST_F(InitialWeights, AnEmptyMatchIsAnError) {
  const auto error = [&](const InitRule& rule) {
    return error_of([&] { take({rule}); }, ErrorKind::kConfig);
  };
  EXPECT_THAT(error({.from = folder_ / "vision", .take = "encoder.*", .as = "vision.*"}),
              HasSubstr("gives nothing: none of its parameters fits \"encoder.*\""));
  EXPECT_THAT(error({.from = folder_ / "vision"}),
              HasSubstr("parameters fit \"*\", but (of patch_embed.weight) the model has no such parameter"));
}

TEST_F(InitialWeights, AnEmbeddingOfAnotherVocabularyIsRefused) {
  LanguageModel text(small_language());
  fill_by_formula(text);
  const InitRule rule{.from = folder_ / "text", .as = "text.*"};
  std::ofstream(folder_ / "text/tokenizer.json") << "{\"theirs\": 1}";
  EXPECT_THAT(error_of([&] { take_initial_weights(*model_, {rule}, "{\"ours\": 1}"); }, ErrorKind::kConfig),
              HasSubstr("init: text.embedding comes from another vocabulary: set tokenizer.path"));
  EXPECT_GT(take_initial_weights(*model_, {rule}, "{\"theirs\": 1}").loaded.size(), 0u);
  EXPECT_GT(
      take_initial_weights(*model_, {{.from = folder_ / "text", .take = "blocks.*", .as = "text.blocks.*"}},
                           "{\"ours\": 1}")
          .loaded.size(),
      0u);
}

TEST(InitRule, ChecksItsPatterns) {
  const auto error = [](const InitRule& rule) {
    return error_of([&] { rule.validate(); }, ErrorKind::kConfig);
  };
  EXPECT_THAT(error({}), HasSubstr("from: not given"));
  EXPECT_THAT(error({.from = "x", .take = "a.*.b.*", .as = "c.*"}), HasSubstr("each must have one *"));
  EXPECT_THAT(error({.from = "x", .take = "a?*", .as = "c.*"}), HasSubstr("no ? or ["));
  EXPECT_EQ(error({.from = "x", .take = "a.?.*"}), "");
}

}  // namespace
}  // namespace fathom::initial_weights_test
