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
#include "train/loss_scale.h"
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
  kernels::Products products;
  std::optional<LossScale> loss_scale;

  /// Weights of products in `type`, written by the optimizer.
  void keep_copies(at::ScalarType type) {
    std::vector<at::Tensor> weights;
    for (const auto& [name, parameter] : task->parameters()) weights.push_back(parameter);
    copies.emplace(weights, type, products.saturated);
    optimizer->set_copies(*copies);
    for (MicroBatch& micro_batch : batch) micro_batch.forward.copies = &*copies;
  }

  /// Errors (kUsage): a CPU has none.
  void multiply_in_half(at::Device device) {
    if (device.is_cpu()) fail(ErrorKind::kUsage, "--precision fp16_bf16: no such products on a CPU");
    products = products_of(Precision::kFp16Bf16, device);
    loss_scale.emplace(LossScaleConfig{}, device);
    keep_copies(at::kHalf);
    for (MicroBatch& micro_batch : batch) {
      micro_batch.forward.products = products;
      micro_batch.forward.loss_scale = loss_scale->scale();
    }
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
    const StepContext context{.global_samples = batch[0].batch.size(),
                              .collective = *collective,
                              .expect_last_backward = [this] { reducer->expect_last_backward(); }};
    task->before_step(batch, context);
    reducer->zero();
    if (products.saturated.defined()) products.saturated.zero_();
    fp8_weights.forget();
    task->forward_backward(batch, context);
    reducer->finish();
    const at::Tensor scale = loss_scale ? loss_scale->scale() : at::Tensor(),
                     norm = optimizer->gradient_norm(scale);
    optimizer->step({.norm = norm, .divisor = scale});
    if (loss_scale) loss_scale->update(norm.isfinite().logical_not().to(at::kFloat));
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
  if (question.precision == "fp16_bf16")
    training->multiply_in_half(device);
  else if (type == at::kBFloat16)
    training->keep_copies(type);
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
