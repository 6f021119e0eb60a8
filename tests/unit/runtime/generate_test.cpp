#include "runtime/generate.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "nn/init.h"

namespace fathom::generate_test {
namespace {

constexpr int64_t kWindow = 16;

LanguageModel toy_model() {
  LanguageModel model(LanguageModelConfig{
      .vocab_size = 257, .dim = 32, .layers = 2, .heads = 4, .kv_heads = 2, .max_positions = kWindow});
  init_parameters(*model, 3);
  return model;
}

TEST(Generate, FollowsTheFullPassWithoutSampling) {
  LanguageModel model = toy_model();
  const std::vector<int32_t> prompt = {84, 104, 101};
  const Generation answer = generate(model, prompt, {.sampling = {.temperature = 0}, .max_tokens = 8});
  ASSERT_EQ(answer.tokens.size(), 8u);
  std::vector<int64_t> seen(prompt.begin(), prompt.end());
  for (const int32_t token : answer.tokens) {
    const auto logits = model->forward(at::tensor(seen, at::kLong).unsqueeze(0))[0][-1];
    EXPECT_NEAR(logits.max().item<float>(), logits[token].item<float>(), 1e-4);
    seen.push_back(token);
  }
}

TEST(Generate, EndsWhereItShould) {
  LanguageModel model = toy_model();
  const std::vector<int32_t> prompt = {84, 104, 101};
  const Generation full = generate(model, prompt, {.max_tokens = 100, .seed = 5});
  EXPECT_EQ(full.reason, GenerationEnd::kContextFull);
  EXPECT_EQ(full.tokens.size(), static_cast<size_t>(kWindow) - 3);
  EXPECT_EQ(generate(model, prompt, {.max_tokens = 100, .seed = 5}).tokens, full.tokens);
  EXPECT_NE(generate(model, prompt, {.max_tokens = 100, .seed = 6}).tokens, full.tokens);

  const Generation stopped =
      generate(model, prompt, {.max_tokens = 100, .seed = 5, .stop_token = full.tokens[4]});
  EXPECT_EQ(stopped.reason, GenerationEnd::kStopToken);
  EXPECT_LE(stopped.tokens.size(), 4u);
  int64_t shown = 0;
  generate(model, prompt, {.max_tokens = 5}, [&](int32_t) { return ++shown < 3; });
  EXPECT_EQ(shown, 3);
}

TEST(Generate, RefusesWhatCannotBeContinued) {
  LanguageModel model = toy_model();
  EXPECT_THROW(generate(model, std::vector<int32_t>{}, {}), Error);
  EXPECT_THROW(generate(model, std::vector<int32_t>(kWindow, 1), {}), Error);
  EXPECT_THROW(generate(model, std::vector<int32_t>{1000}, {}), Error);
}

}  // namespace
}  // namespace fathom::generate_test
