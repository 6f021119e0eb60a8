// A task small enough to be trained many times: which tokens occur in a sentence decides its score.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/random.h"
#include "batch/loader.h"
#include "tensor/device_runtime.h"
#include "tensor/random_keys.h"
#include "train/task.h"
#include "train/trainer.h"

namespace fathom::testing {

class SentenceSource : public SampleSource {
 public:
  int64_t size() const override { return 24; }
  Sample load(int64_t index, int64_t epoch) const override {
    Random random({static_cast<uint64_t>(epoch), static_cast<uint64_t>(index)});
    Sample sample{.index = index};
    std::vector<int32_t>& row = sample.token_rows.emplace_back();
    for (int64_t i = 0; i < 4; ++i) row.push_back(static_cast<int32_t>(random.below(10)));
    return sample;
  }
};

/// Regression of the number of even tokens, with noise keyed by sample.
class CountTask : public Task {
 public:
  explicit CountTask(int64_t seed = 3) {
    torch::manual_seed(seed);
    weight_ = torch::randn({10, 2}).requires_grad_();
    bias_ = torch::zeros({2}).requires_grad_();
  }

  NamedParameters parameters() const override { return {{"weight", weight_}, {"bias", bias_}}; }

  at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) override {
    if (static_cast<int64_t>(weights_by_step.size()) == step.step) weights_by_step.push_back(flat_weights());
    progress.push_back(step.progress.item<double>());
    micro_batch_sizes.push_back(micro_batch.batch.size());
    last_forward = micro_batch.forward;
    was_deterministic = at::globalContext().deterministicAlgorithms();
    const at::Tensor& tokens = micro_batch.batch.tokens_BT;
    const at::Tensor noise = keyed_uniform(micro_batch.forward.key_B, {1}, 5) * 0.1;
    const at::Tensor answer = (at::embedding(weight_, tokens).sum(1) + bias_).sum(1);
    if (overflow_steps.contains(step.step))
      answer.register_hook(
          [](const at::Tensor& gradient) { return gradient * std::numeric_limits<double>::infinity(); });
    const at::Tensor target = tokens.remainder(2).eq(0).sum(1).to(at::kFloat) + noise.squeeze(1);
    const at::Tensor share = (answer - target).square().sum() / static_cast<double>(step.global_samples);
    return step.step == nan_step ? share * std::nan("") : share;
  }

  Metrics evaluate() override {
    weights_evaluated.push_back(weight_.detach().clone());
    Metrics metrics = {{"error", {next_figure ? next_figure() : weight_.norm().item<double>(), false}}};
    if (weights_evaluated.size() <= share_evaluated.size())
      metrics["share"] = {share_evaluated[weights_evaluated.size() - 1], true};
    return metrics;
  }
  std::string default_metric() const override { return "error"; }
  void save_model(const std::string& folder, const Json& record) override {
    std::filesystem::create_directories(folder);
    write_json_file(folder + "/record.json", record);
  }
  double flops_per_sample() const override { return 100; }

  at::Tensor weight() const { return weight_; }
  at::Tensor bias() const { return bias_; }
  /// All weights in one row.
  at::Tensor flat_weights() const { return at::cat({weight_.flatten(), bias_}).detach().clone(); }

  int64_t nan_step = -1;
  std::set<int64_t> overflow_steps;  ///< whose gradient is infinite
  std::function<double()> next_figure;
  std::vector<double> share_evaluated;  ///< a second figure of each evaluation, higher is better
  std::vector<at::Tensor> weights_evaluated;
  std::vector<at::Tensor> weights_by_step;  ///< as each step found them
  std::vector<int64_t> micro_batch_sizes;   ///< of all steps, in order
  std::vector<double> progress;             ///< likewise
  ForwardContext last_forward;
  bool was_deterministic = false;  ///< at the last step

 private:
  at::Tensor weight_, bias_;
};

/// As a session does: the recipe says what the configuration does.
inline TrainerConfig with_recipe(TrainerConfig config) {
  config.recipe = Json::Object{{"seed", config.seed}, {"training", config_to_json(config.training)}};
  return config;
}

/// A task, a loader and a trainer in one process.
struct SmallRun {
  explicit SmallRun(const TrainerConfig& config,
                    std::shared_ptr<const SampleSource> source = std::make_shared<SentenceSource>())
      : loader(LoaderSetup{.source = std::move(source),
                           .sampler = {.batch_size = config.training.batch_size, .seed = config.seed},
                           .loader = {.workers = 0}}),
        collective(make_solo_collective()),
        runtime(make_device_runtime(at::kCPU)),
        trainer(with_recipe(config), {task, loader, *collective, *runtime}) {}

  CountTask task;
  Loader loader;
  std::unique_ptr<Collective> collective;
  std::unique_ptr<DeviceRuntime> runtime;
  Trainer trainer;
};

/// The lines of a run's log.
inline std::vector<Json> log_lines(const std::string& folder) {
  std::istringstream text(read_file(folder + "/log.jsonl"));
  std::vector<Json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(parse_json(line, "log"));
  return lines;
}

/// A figure of those that have it.
inline std::vector<double> logged(const std::string& folder, const char* key) {
  std::vector<double> values;
  for (const Json& line : log_lines(folder))
    if (const Json* value = line.find(key)) values.push_back(value->as_double());
  return values;
}

inline TrainerConfig small_config(const std::string& folder) {
  TrainerConfig config;
  config.run_folder = folder;
  config.training = {.batch_size = 8, .max_steps = 20, .log_every = 1};
  config.optimizer.learning_rate = 0.05;
  config.evaluation.at_end = false;
  return config;
}

}  // namespace fathom::testing
