#include "train/sparse_benchmark.h"

#include <torch/torch.h>

#include <memory>
#include <utility>

#include "nn/init.h"
#include "train/flop_counter.h"
#include "train/sparse_benchmark_parts.h"
#include "train/stand_in_prompt.h"

namespace fathom {
namespace {

using sparse_benchmark::drawn_of;
using sparse_benchmark::drawn_places;
using sparse_benchmark::Learner;
using sparse_benchmark::milliseconds;
using sparse_benchmark::Rounds;
using sparse_benchmark::TimedStep;

class Benchmark {
 public:
  Benchmark(const SparseBenchmarkConfig& config, DeviceRuntime& runtime)
      : config_(config),
        runtime_(runtime),
        device_(runtime.device()),
        gated_(config.model),
        rest_(rest_config()) {
    for (LanguageModel model : {gated_, rest_}) {
      init_parameters(*model, 1);
      model->to(device_);
    }
  }

  SparseBenchmarkReport run() {
    torch::manual_seed(1);
    SparseBenchmarkReport report;
    report.training = training();
    const torch::NoGradGuard no_grad;
    for (LanguageModel model : {gated_, rest_}) {
      model->eval();
      model->to(config_.type);
    }
    for (auto [name, gate] : gates_of(*gated_)) gate->reset_counts();
    prefill(report);
    report.activated_share = activated_share(*gated_).value();
    report.executed_flop_share = flop_share();
    for (const int64_t context : config_.decode_contexts)
      for (const int64_t batch : config_.decode_batches) report.decode.push_back(decode(batch, context));
    return report;
  }

 private:
  /// Embedding, last norm and head, with one block that is never computed.
  LanguageModelConfig rest_config() const {
    LanguageModelConfig config = config_.model;
    config.layers = 1;
    config.gate = {.kind = GateKind::kAlternate, .density = 0.01};
    return config;
  }

  void run_dense(bool dense) {
    for (auto [name, gate] : gates_of(*gated_)) gate->set_bypassed(dense);
  }

  at::Tensor random_tokens(int64_t batch, int64_t tokens) const {
    return torch::randint(config_.model.vocab_size, {batch, tokens}, torch::kLong).to(device_);
  }

  /// Tokens spread evenly over the layers, or the other way round for a single position.
  GateTrace decisions(int64_t batch, int64_t tokens) const {
    GateTrace trace;
    const int64_t layers = config_.model.layers;
    const double share = config_.model.gate.density;
    const at::Tensor active_BL = tokens == 1 ? drawn_places(batch, layers, share, device_) : at::Tensor();
    for (int64_t layer = 0; layer < layers; ++layer)
      trace.active_BT[layer] = tokens == 1 ? active_BL.slice(1, layer, layer + 1).contiguous()
                                           : drawn_places(batch, tokens, share, device_);
    return trace;
  }

  SparseTiming training() {
    const auto collective = make_solo_collective();
    const int64_t batch = config_.training_batch, tokens = config_.training_tokens;
    const GateTrace forced = decisions(batch, tokens);
    const at::Tensor index_B = torch::arange(batch, torch::kLong).to(device_);
    MicroBatch micro_batch{Batch{.index_B = index_B, .tokens_BT = random_tokens(batch, tokens + 1)},
                           ForwardContext{.training = true,
                                          .key_B = index_B,
                                          .compute_dtype = config_.type,
                                          .explore = config_.explore,
                                          .sample_share = 1.0 / static_cast<double>(batch)}};
    Learner rest_learner(rest_, micro_batch, *collective, tokens);
    micro_batch.forward.forced_gates = &forced;
    Learner learner(gated_, std::move(micro_batch), *collective, tokens);
    AdamW optimizer(group_parameters(learner.task.parameters(), {}), OptimizerConfig{});
    if (learner.copies) optimizer.set_copies(*learner.copies);
    TimedStep dense(learner, optimizer, runtime_), gated(learner, optimizer, runtime_),
        rest(rest_learner, optimizer, runtime_);
    // What is launched and then recorded in the first steps counts for nothing.
    const int64_t first = device_.is_cpu() ? -1 : -4;
    Rounds rounds;
    for (int64_t round = first; round < config_.rounds; ++round) {
      run_dense(true);
      const double dense_ms = dense.milliseconds_of_one();
      run_dense(false);
      const double gated_ms = gated.milliseconds_of_one(), rest_ms = rest.milliseconds_of_one();
      if (round >= 0) rounds.add(dense_ms, gated_ms, rest_ms);
    }
    return rounds.medians(share_of(tokens));
  }

  /// Of so many tokens of a row, or of the layers of a single token.
  double share_of(int64_t tokens) const {
    const int64_t count = tokens == 1 ? config_.model.layers : tokens;
    return static_cast<double>(drawn_of(count, config_.model.gate.density)) / static_cast<double>(count);
  }

  void pass(LanguageModel model, const at::Tensor& tokens_BT, const GateTrace* forced, KeyValueCache& cache) {
    const ForwardContext context = {.forced_gates = forced};
    model->logits(model->hidden(tokens_BT, {}, context, &cache).select(1, -1));
  }

  /// A model's way through the prompt: launched, or as a graph that is recorded once.
  class PromptPass {
   public:
    PromptPass(Benchmark& benchmark, LanguageModel model, bool dense, const GateTrace* forced)
        : benchmark_(benchmark),
          model_(std::move(model)),
          cache_(model_->make_cache(benchmark.config_.prefill_batch, benchmark.config_.prefill_tokens)),
          dense_(dense),
          forced_(forced) {}

    double milliseconds_of_one() {
      if (graph_) return milliseconds(benchmark_.runtime_, [this] { graph_->replay(); });
      prepare();
      return milliseconds(benchmark_.runtime_, [this] { run(); });
    }
    /// From now on replays are timed. False where the device has no graphs. REQUIRES that it has run.
    bool record() {
      auto graph = benchmark_.runtime_.make_graph();
      if (!graph) return false;
      prepare();
      graph->capture([this] { run(); });
      graph_ = std::move(graph);
      return true;
    }

   private:
    void prepare() {
      benchmark_.run_dense(dense_);
      cache_.reset();
    }
    void run() { benchmark_.pass(model_, benchmark_.prompt_BT_, forced_, cache_); }

    Benchmark& benchmark_;
    LanguageModel model_;
    KeyValueCache cache_;
    bool dense_;
    const GateTrace* forced_;
    std::unique_ptr<DeviceGraph> graph_;
  };

  void prefill(SparseBenchmarkReport& report) {
    prompt_BT_ = random_tokens(config_.prefill_batch, config_.prefill_tokens);
    forced_ = decisions(config_.prefill_batch, config_.prefill_tokens);
    PromptPass dense(*this, gated_, /*dense=*/true, nullptr), gated(*this, gated_, /*dense=*/false, &forced_),
        rest(*this, rest_, /*dense=*/false, nullptr);
    const auto timed = [&] {
      Rounds rounds;
      for (int64_t round = -1; round < config_.rounds; ++round) {
        const double dense_ms = dense.milliseconds_of_one(), gated_ms = gated.milliseconds_of_one(),
                     rest_ms = rest.milliseconds_of_one();
        if (round >= 0) rounds.add(dense_ms, gated_ms, rest_ms);
      }
      return rounds.medians(share_of(config_.prefill_tokens));
    };
    report.prefill = timed();
    if (dense.record() && gated.record() && rest.record()) report.prefill_recorded = timed();
    run_dense(false);
  }

  double flop_share() {
    const auto flops = [&](bool dense) {
      run_dense(dense);
      KeyValueCache cache = gated_->make_cache(config_.prefill_batch, config_.prefill_tokens);
      const FlopCounter counter;
      pass(gated_, prompt_BT_, dense ? nullptr : &forced_, cache);
      return counter.flops();
    };
    const double gated = flops(false);
    return gated / flops(true);
  }

  /// Decisions of a round's tokens, and how many blocks these need in the mean.
  struct DrawnRound {
    std::vector<GateTrace> forced;
    double blocks = 0;
  };
  DrawnRound drawn_round(int64_t batch) const {
    DrawnRound round;
    for (int64_t i = 0; i <= config_.decode_tokens; ++i) {
      round.forced.push_back(decisions(batch, 1));
      double blocks = 0;
      for (const auto& [layer, active_B1] : round.forced.back().active_BT)
        blocks += active_B1.any().item<bool>() ? 1 : 0;
      if (i > 0) round.blocks += blocks / static_cast<double>(config_.decode_tokens);
    }
    return round;
  }

  /// Milliseconds a token behind `prompt`. `forced`: of each token; null: none are skipped.
  double decode_round(LanguageModel model, KeyValueCache& cache, const StandInPrompt& prompt,
                      const std::vector<GateTrace>* forced) {
    const at::Tensor token_B1 = random_tokens(prompt.batch, 1);
    stand_behind(cache, model->config(), prompt);
    const auto step = [&](size_t i) {
      pass(model, token_B1, forced != nullptr ? &(*forced)[i] : nullptr, cache);
    };
    step(0);  // what the first token behind a prompt costs besides is no decoding
    const auto count = static_cast<size_t>(config_.decode_tokens);
    return milliseconds(runtime_,
                        [&] {
                          for (size_t i = 1; i <= count; ++i) step(i);
                        }) /
           static_cast<double>(count);
  }

  /// Dense and gated share the memory of one cache: each has what it needs of it when its round begins.
  DecodeTiming decode(int64_t batch, int64_t context) {
    const int64_t capacity = context + 1 + config_.decode_tokens;
    KeyValueCache cache = gated_->make_cache(batch, capacity),
                  rest_cache = rest_->make_cache(batch, capacity);
    randomise(cache, config_.model);
    const int64_t keys = drawn_of(context, config_.model.gate.density);
    Rounds rounds;
    double blocks = 0;
    for (int64_t round = -1; round < config_.rounds; ++round) {
      const DrawnRound choice = drawn_round(batch);
      run_dense(true);
      const double dense = decode_round(gated_, cache, {batch, context, context}, nullptr);
      run_dense(false);
      const double gated = decode_round(gated_, cache, {batch, context, keys}, &choice.forced),
                   rest = decode_round(rest_, rest_cache, {batch, context, 0}, nullptr);
      if (round < 0) continue;
      rounds.add(dense, gated, rest);
      blocks += choice.blocks / static_cast<double>(config_.rounds);
    }
    const auto layers = static_cast<double>(config_.model.layers), sequences = static_cast<double>(batch);
    const auto bytes = [&](const DecodeReads& reads) {
      return decode_bytes(config_.model, config_.type, reads);
    };
    return {.batch = batch,
            .context = context,
            .timing = rounds.medians(share_of(1)),
            .dense_bytes = bytes({layers, sequences * layers, static_cast<double>(context)}),
            .gated_bytes = bytes({blocks, sequences * layers * share_of(1), static_cast<double>(keys)})};
  }

  SparseBenchmarkConfig config_;
  DeviceRuntime& runtime_;
  at::Device device_;
  LanguageModel gated_;
  LanguageModel rest_;
  at::Tensor prompt_BT_;
  GateTrace forced_;
};

}  // namespace

SparseBenchmarkReport run_sparse_benchmark(const SparseBenchmarkConfig& config, DeviceRuntime& runtime) {
  return Benchmark(config, runtime).run();
}

}  // namespace fathom
