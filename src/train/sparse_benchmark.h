// What gates save: a gated decoder against the same one dense, in one run.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "models/language/config.h"
#include "tensor/device_runtime.h"

namespace fathom {

struct SparseBenchmarkConfig {
  LanguageModelConfig model = {.vocab_size = 32000,
                               .dim = 1024,
                               .layers = 24,
                               .heads = 16,
                               .mlp_dim = 2816,
                               .max_positions = 1 << 16,
                               .gate = {.kind = GateKind::kCausal, .density = 0.4}};
  at::ScalarType type = at::kFloat;
  int64_t prefill_batch = 4;
  int64_t prefill_tokens = 2048;
  int64_t training_batch = 1;
  int64_t training_tokens = 2048;
  int64_t decode_context = 1024;  ///< keys that are there before the tokens that are timed
  int64_t decode_tokens = 32;     ///< timed a round
  std::vector<int64_t> decode_batches = {1};
  double explore = 0.05;  ///< in training
  int64_t rounds = 3;
};

/// One kind of work, in milliseconds (medians over the rounds, which alternate).
struct SparseTiming {
  double dense_ms = 0;
  double gated_ms = 0;
  double rest_ms = 0;  ///< of the model with every block skipped: what no gate can save
  double share = 1;    ///< of the blocks' tokens that were computed

  double speedup() const { return dense_ms / gated_ms; }
  /// Amdahl's: only the blocks shrink to `share`.
  double limit() const { return dense_ms / (rest_ms + share * (dense_ms - rest_ms)); }
  Json to_json() const;
};

struct SparseBenchmarkReport {
  SparseTiming prefill;              ///< logits of each last position
  SparseTiming training;             ///< forward, backward, clipping, AdamW
  std::vector<SparseTiming> decode;  ///< a token of each sequence, by `decode_batches`
  double activated_share = 0;        ///< of the prefill's tokens, over all layers
  double executed_flop_share = 0;    ///< products executed ÷ those of the dense model, in the prefill

  /// "inference_speedup" is the prefill's, "training_speedup" the training step's.
  Json to_json(const SparseBenchmarkConfig& config) const;
};

/// Decisions are drawn, exactly the density of each row and layer, since an untrained gate has none worth
/// having; scores are computed all the same. The gated and the dense model share every kernel.
SparseBenchmarkReport run_sparse_benchmark(const SparseBenchmarkConfig& config, DeviceRuntime& runtime);

}  // namespace fathom
