#include "train/trainer.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "tensor/random_keys.h"

namespace fathom {
const char* stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::kFinished:
      return "finished";
    case StopReason::kEarlyStopping:
      return "early_stopping";
    case StopReason::kRequested:
      return "requested";
  }
  return "";
}

Json TrainingSummary::to_json() const {
  Json json = Json::object();
  json["steps"] = steps;
  json["reason"] = stop_reason_name(reason);
  json["loss"] = last_loss;
  json["seconds"] = seconds;
  Json figures = Json::object();
  for (const auto& [name, metric] : metrics) figures[name] = metric.value;
  json["evaluation"] = figures;
  json["best"] = best;
  return json;
}

Trainer::Trainer(const TrainerConfig& config, const TrainerParts& parts)
    : config_(config),
      parts_(parts),
      folder_{config.run_folder},
      parameters_(parts.task.parameters()),
      average_(parameters_, config.training.average_decay),
      best_(config.evaluation, parts.task.default_metric()),
      total_steps_(num_steps(config.training, parts.loader.batches_per_epoch())) {
  freeze_parameters(parameters_, config.optimizer.freeze);
  reducer_ = std::make_unique<GradientReducer>(parts.collective, parameters_, config.parallel);
  optimizer_ = std::make_unique<AdamW>(group_parameters(parameters_, config.optimizer), config.optimizer);
}

TrainingSummary Trainer::run() {
  if (!monitor_) start_monitor();
  while (step_ < total_steps_ && !must_stop()) {
    train_step();
    keep_what_is_due();
  }
  monitor_->flush();
  finish();
  TrainingSummary summary{.steps = step_, .last_loss = monitor_->last_loss(), .seconds = monitor_->seconds()};
  if (step_ < total_steps_)
    summary.reason = stops_early_ ? StopReason::kEarlyStopping : StopReason::kRequested;
  summary.metrics = metrics_;
  if (best_.value()) {
    summary.best["metric"] = best_.metric();
    summary.best["value"] = *best_.value();
    summary.best["step"] = best_.step();
  }
  return summary;
}

void Trainer::start_monitor() {
  const double peak = parts_.runtime.peak_flops(product_type(config_.precision));
  monitor_ = std::make_unique<Monitor>(
      MonitorSetup{.run_folder = is_main() ? folder_.path : "",
                   .log_every = config_.training.log_every,
                   .start_step = step_,
                   .total_steps = total_steps_,
                   .tokens_per_sample = parts_.task.tokens_per_sample(),
                   .flops_per_sample = parts_.task.flops_per_sample(),
                   .peak_flops = peak * static_cast<double>(parts_.collective.size())},
      parts_.runtime);
}

bool Trainer::must_stop() const {
  return monitor_->stop_requested() || stops_early_;
}

std::vector<MicroBatch> Trainer::prepare(const Batch& batch) const {
  const int64_t most =
      config_.training.micro_batch_size > 0 ? config_.training.micro_batch_size : batch.size();
  const at::Device device = parts_.runtime.device();
  std::vector<MicroBatch> micro_batches;
  for (int64_t start = 0; start < batch.size(); start += most) {
    Batch part = slice_batch(batch, start, std::min(most, batch.size() - start));
    const at::Tensor key_B = make_sample_keys(part.index_B, config_.seed, step_);
    micro_batches.push_back({to_device(std::move(part), device, parts_.task.pixels()),
                             ForwardContext{.training = true,
                                            .key_B = key_B.to(device, /*non_blocking=*/true),
                                            .compute_dtype = compute_type(config_.precision),
                                            .checkpoint_blocks = config_.training.checkpoint_blocks}});
    at::Tensor& image_BCHW = micro_batches.back().batch.image_BCHW;
    if (image_BCHW.defined()) image_BCHW = image_BCHW.to(parameter_type(config_.precision));
  }
  return micro_batches;
}

void Trainer::train_step() {
  const SamplerState place = parts_.loader.state();
  const std::optional<Batch> batch = parts_.loader.next();
  FATHOM_CHECK(batch.has_value(), "[trainer] expected an endless loader, it ended at step {}", step_);
  const int64_t samples =
      std::min(config_.training.batch_size,
               parts_.loader.num_samples() - place.position * config_.training.batch_size);
  const std::vector<MicroBatch> micro_batches = prepare(*batch);
  const StepContext context{.step = step_,
                            .total_steps = total_steps_,
                            .global_samples = samples,
                            .collective = parts_.collective,
                            .expect_last_backward = [this] { reducer_->expect_last_backward(); }};
  parts_.task.before_step(micro_batches, context);
  reducer_->zero();
  const at::Tensor loss = parts_.task.forward_backward(micro_batches, context);
  reducer_->finish();
  const double learning_rate =
      config_.optimizer.learning_rate * learning_rate_scale(config_.schedule, step_, total_steps_);
  const at::Tensor norm = apply_gradients(learning_rate);
  parts_.task.after_step(context);
  ++step_;
  report(loss, norm, learning_rate, samples);
}

/// A gradient that is not finite changes nothing; the host hears of it a step later.
at::Tensor Trainer::apply_gradients(double learning_rate) {
  const torch::NoGradGuard no_grad;
  const std::vector<at::Tensor>& gradients = reducer_->buckets();
  const at::Tensor norm = gradient_norm(gradients);
  clip_gradients(gradients, norm, config_.optimizer.clip_norm);
  optimizer_->step(learning_rate, norm.isfinite().logical_not().to(at::kFloat));
  average_.update();
  return norm;
}

void Trainer::report(const at::Tensor& loss, const at::Tensor& norm, double learning_rate, int64_t samples) {
  const torch::NoGradGuard no_grad;
  const double max_seconds = config_.training.max_seconds;
  const bool stop = stop_signal_.requested() || (max_seconds > 0 && monitor_->seconds() > max_seconds);
  at::Tensor shared = at::stack({loss, at::full_like(loss, stop ? 1.0 : 0.0)});
  parts_.collective.all_reduce(shared);
  const at::Tensor values = at::stack({shared[0], norm.to(shared.scalar_type()), shared[1]});
  monitor_->add({.step = step_,
                 .learning_rate = learning_rate,
                 .samples = samples,
                 .wait_seconds = parts_.loader.wait_seconds(),
                 .values = DeferredRead(values, parts_.runtime)});
}

}  // namespace fathom
