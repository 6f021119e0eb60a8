#include "step/training.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "distributed/collective.h"
#include "distributed/data_parallel.h"
#include "kernels/weight_copies.h"
#include "train/optimizer.h"
#include "train/precision.h"

namespace fathom::bench {
namespace {

/// All that a step needs.
struct Training {
  std::unique_ptr<Task> task;
  std::vector<MicroBatch> batch;
  std::unique_ptr<Collective> collective = make_solo_collective();
  std::unique_ptr<GradientReducer> reducer;
  std::unique_ptr<AdamW> optimizer;
  std::optional<kernels::WeightCopies> copies;
  kernels::Fp8Weights fp8_weights;
  std::optional<kernels::Fp8Products> fp8;

  /// Weights of products in `type`, written by the optimizer.
  void keep_copies(at::ScalarType type) {
    std::vector<at::Tensor> weights;
    for (const auto& [name, parameter] : task->parameters()) weights.push_back(parameter);
    copies.emplace(weights, type);
    optimizer->set_copies(*copies);
    for (MicroBatch& micro_batch : batch) micro_batch.forward.copies = &*copies;
  }

  /// Errors (kUsage): the device has none.
  void multiply_in_fp8(at::Device device) {
    fp8 = fp8_products_of(Precision::kFp8, {}, device);
    if (device.is_cpu() || !fp8)
      fail(ErrorKind::kUsage, "--precision fp8: no such products on {}", device.str());
    fp8->weights = &fp8_weights;
    for (MicroBatch& micro_batch : batch) micro_batch.forward.fp8 = &*fp8;
  }

  void step() {
    const StepContext context{.total_steps = 1,
                              .global_samples = batch[0].batch.size(),
                              .collective = *collective,
                              .expect_last_backward = [this] { reducer->expect_last_backward(); }};
    task->before_step(batch, context);
    reducer->zero();
    fp8_weights.forget();
    task->forward_backward(batch, context);
    reducer->finish();
    optimizer->step({.norm = optimizer->gradient_norm()});
  }
};

}  // namespace

std::function<void()> training_step(std::unique_ptr<Task> task, Batch batch, const Question& question) {
  const at::ScalarType type = question.type();
  const at::Device device = batch.index_B.device();
  const auto training = std::make_shared<Training>();
  training->task = std::move(task);
  ForwardContext context{.training = true, .key_B = batch.index_B.clone()};
  if (type != at::kFloat) context.compute_dtype = type;
  training->batch.push_back({std::move(batch), context});
  training->reducer = std::make_unique<GradientReducer>(*training->collective, training->task->parameters());
  training->optimizer =
      std::make_unique<AdamW>(group_parameters(training->task->parameters(), {}), OptimizerConfig{});
  if (type == at::kBFloat16) training->keep_copies(type);
  if (question.precision == "fp8") training->multiply_in_fp8(device);
  for (MicroBatch& micro_batch : training->batch) micro_batch.forward.rooms = training->reducer.get();
  return [training] { training->step(); };
}

LanguageModelConfig transformer_config(const Question& question) {
  const int64_t dim = question.shape[1];
  return {.vocab_size = question.vocabulary,
          .dim = dim,
          .layers = question.shape[0],
          .heads = std::max<int64_t>(1, dim / 64),
          .mlp_dim = 11 * dim / 4,
          .max_positions = question.shape[2]};
}

SwinConfig swin_config(const Question& question) {
  SwinConfig config = swin_preset(SwinPreset::kTiny);
  config.image_size = question.image_side;
  config.drop_path = 0;
  return config;
}

void add_sizes(Json& sizes, const LanguageModelConfig& config) {
  sizes["layers"] = config.layers;
  sizes["dim"] = config.dim;
  sizes["heads"] = config.heads;
  sizes["mlp_dim"] = config.mlp_size();
  sizes["vocabulary"] = config.vocab_size;
}

void add_sizes(Json& sizes, const SwinConfig& config) {
  sizes["image_side"] = config.image_size;
  sizes["window"] = config.window;
}

}  // namespace fathom::bench
