#include "train/sparse_benchmark_parts.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace fathom::sparse_benchmark {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

void Rounds::add(double dense_ms, double gated_ms, double rest_ms) {
  dense.push_back(dense_ms);
  gated.push_back(gated_ms);
  rest.push_back(rest_ms);
}

SparseTiming Rounds::medians(double share) const {
  return {median(dense), median(gated), median(rest), share};
}

double milliseconds(DeviceRuntime& runtime, const std::function<void()>& work) {
  runtime.synchronize();
  const auto start = std::chrono::steady_clock::now();
  work();
  runtime.synchronize();
  return 1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int64_t drawn_of(int64_t columns, double share) {
  return static_cast<int64_t>(std::ceil(share * static_cast<double>(columns)));
}

at::Tensor drawn_places(int64_t rows, int64_t columns, double share, at::Device device) {
  return torch::rand({rows, columns})
      .argsort(/*stable=*/true, /*dim=*/1, /*descending=*/false)
      .lt(drawn_of(columns, share))
      .to(device);
}

Learner::Learner(LanguageModel model, MicroBatch batch, Collective& group, int64_t tokens)
    : collective(group),
      task({.model = model, .num_tokens = tokens}),
      reducer(group, task.parameters()),
      inputs{std::move(batch)} {
  ForwardContext& forward = inputs[0].forward;
  forward.rooms = &reducer;
  if (c10::elementSize(forward.compute_dtype.value_or(at::kFloat)) != 2) return;
  std::vector<at::Tensor> weights;
  for (const auto& [name, parameter] : task.parameters()) weights.push_back(parameter);
  copies.emplace(weights, *forward.compute_dtype);
  forward.copies = &*copies;
}

void Learner::learn(std::span<const MicroBatch> micro_batches) {
  const StepContext step{.global_samples = micro_batches[0].batch.size(),
                         .collective = collective,
                         .expect_last_backward = [this] { reducer.expect_last_backward(); }};
  task.before_step(micro_batches, step);
  reducer.zero();
  task.forward_backward(micro_batches, step);
  reducer.finish();
}

double TimedStep::milliseconds_of_one() {
  learner_.inputs[0].forward.waited = &waited_;
  return milliseconds(runtime_, [this] {
    if (learner_.copies) learner_.copies->refresh();
    recorder_.run(learner_.inputs, [this](std::span<const MicroBatch> inputs) {
      learner_.learn(inputs);
      const at::Tensor norm = optimizer_.gradient_norm();
      optimizer_.step({.norm = norm});
      return std::vector<at::Tensor>{norm};
    });
    if (waited_) recorder_.disable();
  });
}

}  // namespace fathom::sparse_benchmark
