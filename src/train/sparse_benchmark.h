// What gates save: a gated decoder against the same one dense, in one run.
#pragma once

#include <cstdint>
#include <optional>
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
  std::vector<int64_t> decode_contexts = {1024};  ///< tokens seen before those that are timed
  std::vector<int64_t> decode_batches = {1};      ///< with each of the contexts
  int64_t decode_tokens = 32;                     ///< timed a round
  double explore = 0.05;                          ///< in training
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

/// What a decoder has to read for one token of each sequence.
struct DecodeReads {
  double blocks = 0;  ///< whose weights some sequence needs
  double visits = 0;  ///< of sequences to blocks, which read their keys and values
  double keys = 0;    ///< that a block holds of a sequence
};
/// With the head, which every token needs.
double decode_bytes(const LanguageModelConfig& model, at::ScalarType type, const DecodeReads& reads);

/// A token of each of `batch` sequences that have seen `context` tokens: milliseconds of a step.
struct DecodeTiming {
  int64_t batch = 0;
  int64_t context = 0;
  SparseTiming timing;
  double dense_bytes = 0;  ///< a step, at least
  double gated_bytes = 0;

  /// Amdahl's by bytes, since decoding reads more than it computes: in a batch every block is read for
  /// somebody, and only keys and values shrink.
  double limit() const { return dense_bytes / gated_bytes; }
  Json to_json() const;
};

struct SparseBenchmarkReport {
  SparseTiming prefill;  ///< logits of each last position, launched one operation after the other
  std::optional<SparseTiming> prefill_recorded;  ///< the same as one graph, where the device has these
  SparseTiming training;                         ///< the trainer's step, recorded where it would be
  std::vector<DecodeTiming> decode;              ///< each context with all batches
  double activated_share = 0;                    ///< of the prefill's tokens, over all layers
  double executed_flop_share = 0;  ///< products executed ÷ those of the dense model, in the prefill

  /// "inference_speedup" is the prefill's, "training_speedup" the training step's.
  Json to_json() const;
};

/// Decisions are drawn, exactly the density of each row and layer, since an untrained gate has none worth
/// having; scores are computed all the same. The gated and the dense model share every kernel. Decoding finds
/// random keys and values in its cache, the density of the context's in each gated layer. Training steps take
/// their weights' copies and gradients' places as the trainer's do; `rest_ms` has the whole model's update.
SparseBenchmarkReport run_sparse_benchmark(const SparseBenchmarkConfig& config, DeviceRuntime& runtime);

}  // namespace fathom
