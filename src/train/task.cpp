#include "train/task.h"

#include <torch/torch.h>

#include <cmath>

namespace fathom {

Json figures_json(const Metrics& metrics) {
  Json figures = Json::object();
  for (const auto& [name, metric] : metrics) figures[name] = metric.value;
  return figures;
}

Json metrics_to_json(const Metrics& metrics) {
  Json json = Json::object();
  for (const auto& [name, metric] : metrics)
    json[name] = Json::Object{{"value", metric.value}, {"higher_is_better", metric.higher_is_better}};
  return json;
}

Metrics metrics_from_json(const Json& json) {
  Metrics metrics;
  for (const auto& [name, metric] : json.as_object()) {
    const Json& value = metric.at("value");
    metrics[name] = {value.is_null() ? std::nan("") : value.as_double(),
                     metric.at("higher_is_better").as_bool()};
  }
  return metrics;
}

at::Tensor count_over_step(std::span<const MicroBatch> micro_batches, const StepContext& step,
                           const at::Tensor& like, const std::function<at::Tensor(const Batch&)>& count) {
  const torch::NoGradGuard no_grad;
  at::Tensor total = at::zeros({}, at::TensorOptions().dtype(like.scalar_type()).device(like.device()));
  for (const MicroBatch& micro_batch : micro_batches) total += count(micro_batch.batch);
  step.collective.all_reduce(total);
  return total;
}

at::Tensor Task::forward_backward(std::span<const MicroBatch> micro_batches, const StepContext& step) {
  at::Tensor total;
  for (const MicroBatch& micro_batch : micro_batches) {
    if (&micro_batch == &micro_batches.back()) step.expect_last_backward();
    const at::Tensor share = loss(micro_batch, step);
    micro_batch.forward.scaled(share).backward();
    total = total.defined() ? total + share.detach() : share.detach();
  }
  return total;
}

}  // namespace fathom
