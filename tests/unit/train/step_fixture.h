// One step of a task in this process, whole or in micro-batches.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "distributed/collective.h"
#include "tensor/random_keys.h"
#include "train/task.h"

namespace fathom::testing {

/// Micro-batches of `size` samples, the last one of what is left, with the keys of their samples.
inline std::vector<MicroBatch> split(const Batch& batch, int64_t size) {
  std::vector<MicroBatch> parts;
  for (int64_t start = 0; start < batch.size(); start += size) {
    Batch part = slice_batch(batch, start, std::min(size, batch.size() - start));
    const at::Tensor key_B = make_sample_keys(part.index_B, 5, 6);
    parts.push_back({std::move(part), {.training = true, .key_B = key_B}});
  }
  return parts;
}

struct StepResult {
  double loss = 0;
  int last_backward_calls = 0;
  std::map<std::string, at::Tensor> gradients;  ///< of what is trained; zeros where there is none
};

/// Step `number` of 100, from no gradients.
inline StepResult run_step(Task& task, const std::vector<MicroBatch>& parts, int64_t number = 30) {
  StepResult result;
  int64_t samples = 0;
  for (const MicroBatch& part : parts) samples += part.batch.size();
  for (const auto& [name, parameter] : task.parameters()) parameter.mutable_grad() = at::Tensor();
  const auto solo = make_solo_collective();
  const StepContext step{.step = number,
                         .progress = at::full({}, static_cast<double>(number) / 100, at::kDouble),
                         .global_samples = samples,
                         .collective = *solo,
                         .expect_last_backward = [&] { ++result.last_backward_calls; }};
  task.before_step(parts, step);
  result.loss = task.forward_backward(parts, step).item<double>();
  for (const auto& [name, parameter] : task.parameters())
    if (parameter.requires_grad())
      result.gradients[name] = parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter);
  return result;
}

/// Losses within `tolerance`, gradients within that and a thousand times that of their size.
inline void expect_equal(const StepResult& got, const StepResult& expected, double tolerance) {
  EXPECT_NEAR(got.loss, expected.loss, tolerance);
  ASSERT_EQ(got.gradients.size(), expected.gradients.size());
  double largest = 0;
  for (const auto& [name, gradient] : expected.gradients) {
    EXPECT_TRUE(at::allclose(got.gradients.at(name), gradient, 1e3 * tolerance, tolerance)) << name;
    largest = std::max(largest, gradient.abs().max().item<double>());
  }
  EXPECT_GT(largest, 1e-4) << "something is learned";
}

}  // namespace fathom::testing
