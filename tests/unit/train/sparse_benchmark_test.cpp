// What fathom bench sparse counts, and what decoding finds in its cache.
#include "train/sparse_benchmark.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "models/language/model.h"
#include "nn/init.h"
#include "tensor/device_runtime.h"
#include "train/stand_in_prompt.h"

namespace fathom::sparse_benchmark_test {
namespace {

LanguageModelConfig decoder() {
  return {.vocab_size = 50,
          .dim = 32,
          .layers = 3,
          .heads = 4,
          .kv_heads = 2,
          .mlp_dim = 40,
          .max_positions = 64,
          .gate = {.kind = GateKind::kCausal, .density = 0.25}};
}

TEST(SparseBenchmark, DecodingReadsBlocksOnceAndKeysBySequence) {
  const LanguageModelConfig model = decoder();
  const double block = 32 * (32 + 2 * 16) + 32 * 32 + 3 * 32 * 40 + 2 * 32, head = 50 * 32;
  EXPECT_EQ(decode_bytes(model, at::kBFloat16, {}), 2 * head);
  EXPECT_EQ(decode_bytes(model, at::kFloat, {.blocks = 2.5, .visits = 6, .keys = 10}),
            4 * (2.5 * block + head + 6 * 10 * 2 * 16));
}

TEST(SparseBenchmark, TimesEveryKindOfWork) {
  const auto runtime = make_device_runtime(at::kCPU);
  SparseBenchmarkConfig config{.model = decoder(),
                               .type = at::kBFloat16,
                               .prefill_batch = 1,
                               .prefill_tokens = 8,
                               .training_tokens = 8,
                               .decode_contexts = {4},
                               .decode_tokens = 2,
                               .rounds = 1};
  const SparseBenchmarkReport report = run_sparse_benchmark(config, *runtime);
  EXPECT_NEAR(report.activated_share, 0.25, 1e-9);
  EXPECT_EQ(report.training.share, 0.25);
  EXPECT_FALSE(report.prefill_recorded.has_value());  // a CPU has no graphs
  ASSERT_EQ(report.decode.size(), 1u);
  for (const SparseTiming& timing : {report.prefill, report.training, report.decode[0].timing})
    for (const double ms : {timing.dense_ms, timing.gated_ms, timing.rest_ms}) EXPECT_GT(ms, 0);
}

TEST(StandInPrompt, LeavesTheCacheAsAPromptOfItsLengthDoes) {
  const torch::NoGradGuard no_grad;
  const LanguageModelConfig config = decoder();
  LanguageModel model(config);
  init_parameters(*model, 1);
  model->eval();
  constexpr int64_t kSequences = 2, kPrompt = 8, kHeld = 2;
  GateTrace some, one;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    some.active_BT[layer] = (torch::arange(kPrompt) % 4 == layer).expand({kSequences, kPrompt}).contiguous();
    one.active_BT[layer] = torch::full({kSequences, 1}, layer != 1);
  }
  KeyValueCache read = model->make_cache(kSequences, 16), stand_in = model->make_cache(kSequences, 16);
  model->hidden(torch::zeros({kSequences, kPrompt}, torch::kLong), {}, {.forced_gates = &some}, &read);
  randomise(stand_in, config);
  const StandInPrompt prompt = {.batch = kSequences, .tokens = kPrompt, .keys = kHeld};
  stand_behind(stand_in, config, prompt);
  for (const bool decodes : {false, true}) {
    for (KeyValueCache* cache : {&read, &stand_in})
      if (decodes)
        model->hidden(torch::ones({kSequences, 1}, torch::kLong), {}, {.forced_gates = &one}, cache);
    EXPECT_EQ(stand_in.length(), read.length());
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      EXPECT_EQ(stand_in.gate_sum(layer).sizes(), read.gate_sum(layer).sizes());
      EXPECT_EQ(stand_in.gate_sum(layer).scalar_type(), read.gate_sum(layer).scalar_type());
      for (int64_t row = 0; row < kSequences; ++row)
        EXPECT_EQ(stand_in.num_keys(layer, row), read.num_keys(layer, row)) << layer;
    }
  }
  stand_behind(stand_in, config, prompt);  // nothing is left of what was decoded
  EXPECT_EQ(stand_in.length(), kPrompt);
  EXPECT_EQ(stand_in.num_keys(0, 1), kHeld);
  EXPECT_TRUE(stand_in.room(2).second.isfinite().all().item<bool>());
}

}  // namespace
}  // namespace fathom::sparse_benchmark_test
