#include "train/trainer.h"

#include <torch/torch.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "tensor/random_keys.h"

namespace fathom {
namespace {

/// The same in memory from which the device fetches on its own.
Batch pin(Batch batch, DeviceRuntime& runtime) {
  for (at::Tensor* tensor : batch.tensors()) {
    if (!tensor->defined()) continue;
    const at::Tensor room = runtime.pinned_empty({tensor->numel()}, tensor->scalar_type());
    *tensor = room.as_strided(tensor->sizes(), tensor->strides()).copy_(*tensor);
  }
  return batch;
}

}  // namespace

const char* stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::kFinished:
      return "finished";
    case StopReason::kEarlyStopping:
      return "early_stopping";
    case StopReason::kTimeUp:
      return "max_seconds";
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
  json["replaced"] = replaced;
  json["evaluation"] = figures_json(metrics);
  json["evaluated_step"] = metrics.empty() ? Json() : Json(evaluated_step);
  json["best"] = best;
  return json;
}

Trainer::Trainer(const TrainerConfig& config, const TrainerParts& parts)
    : config_(config),
      determinism_(config.training.deterministic),
      parts_(parts),
      folder_{config.run_folder},
      parameters_(parts.task.parameters()),
      average_(parameters_, config.training.average_decay),
      best_(config.evaluation, parts.task.default_metric()),
      total_steps_(num_steps(config.training, parts.loader.batches_per_epoch())),
      gates_(parts.task.gates(), config.gating),
      products_(products_of(config.precision, parts.runtime.device())),
      fp8_(fp8_products_of(config.precision, config.fp8, parts.runtime.device())),
      saturated_(fp8_ ? fp8_->beyond : products_.saturated),
      progress_(at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(parts.runtime.device()))),
      recorder_(parts.runtime, config.training.record_step && parts.task.launches_alike() &&
                                   parts.collective.size() == 1 && !parts.runtime.device().is_cpu()) {
  freeze_parameters(parameters_, config.optimizer.freeze);
  freeze_lower_layers(parameters_, config.optimizer.freeze_layers);
  reducer_ = std::make_unique<GradientReducer>(parts.collective, parameters_, config.parallel);
  optimizer_ = std::make_unique<AdamW>(group_parameters(parameters_, config.optimizer), config.optimizer);
  average_.join(*optimizer_);
  keep_copies();
  // A card without FP8 products keeps what others do: the step and its figures are those of all ranks.
  if (config.precision == Precision::kFp8 && !saturated_.defined())
    saturated_ = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(parts.runtime.device()));
  if (saturated_.defined()) loss_scale_.emplace(config.loss_scale, parts.runtime.device());
}

/// Of all weights, frozen ones too: products take those as well.
void Trainer::keep_copies() {
  const auto type = copy_type(config_.precision);
  if (!type || !config_.training.weight_copies) return;
  std::vector<at::Tensor> weights;
  for (const auto& [name, parameter] : parameters_) weights.push_back(parameter);
  copies_.emplace(weights, *type, products_.saturated);
  optimizer_->set_copies(*copies_);
}

TrainingSummary Trainer::run() {
  if (!monitor_) start_monitor();
  while (!is_over()) {
    train_step();
    keep_what_is_due();
  }
  monitor_->flush();
  const StopReason reason = stop_reason();
  finish(reason);
  TrainingSummary summary{.steps = step_,
                          .reason = reason,
                          .last_loss = monitor_->last_loss(),
                          .seconds = monitor_->seconds(),
                          .replaced = parts_.loader.num_replaced(),
                          .metrics = metrics_,
                          .evaluated_step = evaluated_step_};
  if (best_.value()) {
    summary.best["metric"] = best_.metric();
    summary.best["value"] = *best_.value();
    summary.best["step"] = best_.step();
  }
  return summary;
}

void Trainer::start_monitor() {
  const double peak = peak_flops(config_.precision, parts_.runtime);
  std::vector<std::string> further = gates_.figure_names();
  if (loss_scale_) further.emplace_back("saturated_casts");
  monitor_ = std::make_unique<Monitor>(
      MonitorSetup{.run_folder = is_main() ? folder_.path : "",
                   .log_every = config_.training.log_every,
                   .start_step = step_,
                   .total_steps = total_steps_,
                   .scales_loss = loss_scale_.has_value(),
                   .further_figures = std::move(further),
                   .tokens_per_sample = parts_.task.tokens_per_sample(),
                   .questions_per_sample = parts_.task.questions_per_sample(),
                   .flops_per_sample = parts_.task.flops_per_sample(),
                   .peak_flops = peak * static_cast<double>(parts_.collective.size())},
      parts_.runtime);
}

bool Trainer::is_over() const {
  return step_ >= total_steps_ || stops_early_ || time_is_up_ || monitor_->stop_requested();
}

/// Ranks vote: a signal to one of them counts.
StopReason Trainer::stop_reason() {
  if (step_ >= total_steps_) return StopReason::kFinished;
  if (stops_early_) return StopReason::kEarlyStopping;
  at::Tensor signals = at::full({1}, stop_signal_.requested() ? 1.0 : 0.0,
                                at::TensorOptions().dtype(at::kFloat).device(parts_.runtime.device()));
  parts_.collective.all_reduce(signals);
  return signals.item<float>() > 0 ? StopReason::kRequested : StopReason::kTimeUp;
}

std::vector<MicroBatch> Trainer::prepare(const Batch& batch, int64_t global_samples) {
  const int64_t most =
      config_.training.micro_batch_size > 0 ? config_.training.micro_batch_size : batch.size();
  const at::Device device = parts_.runtime.device();
  const Batch pinned = device.is_cpu() ? batch : pin(batch, parts_.runtime);
  std::vector<MicroBatch> micro_batches;
  if (fp8_) fp8_->weights = &fp8_weights_;
  for (int64_t start = 0; start < batch.size(); start += most) {
    Batch part = slice_batch(pinned, start, std::min(most, batch.size() - start));
    const at::Tensor key_B = make_sample_keys(part.index_B, config_.seed, step_);
    micro_batches.push_back({to_device(std::move(part), device, parts_.task.pixels()),
                             ForwardContext{.training = true,
                                            .key_B = key_B.to(device, /*non_blocking=*/true),
                                            .compute_dtype = compute_type(config_.precision),
                                            .products = products_,
                                            .fp8 = fp8_ ? &*fp8_ : nullptr,
                                            .copies = copies_ ? &*copies_ : nullptr,
                                            .rooms = reducer_.get(),
                                            .loss_scale = loss_scale_ ? loss_scale_->scale() : at::Tensor(),
                                            .checkpoint_blocks = config_.training.checkpoint_blocks,
                                            .explore = gates_.config().explore,
                                            .score_values = gates_.config().score_values,
                                            .sample_share = 1.0 / static_cast<double>(global_samples),
                                            .waited = &waited_}});
    at::Tensor& image_BCHW = micro_batches.back().batch.image_BCHW;
    if (image_BCHW.defined()) image_BCHW = image_BCHW.to(parameter_type(config_.precision));
  }
  return micro_batches;
}

/// Nothing has been done of the step yet, so that what was learned can be kept where its data are broken.
Batch Trainer::next_batch() {
  try {
    std::optional<Batch> batch = parts_.loader.next();
    FATHOM_CHECK(batch.has_value(), "[trainer] expected an endless loader, it ended at step {}", step_);
    return std::move(*batch);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kData) save_before_failing();
    throw;
  }
}

/// What decides, beside the batch, which operations a step launches: a copy that is made writes one more.
int64_t Trainer::kind_of_step() const {
  return 2 * (copies_ ? copies_->size() : 0) + (gates_.is_dense() ? 1 : 0);
}

void Trainer::train_step() {
  const SamplerState place = parts_.loader.state();
  const Batch batch = next_batch();
  const int64_t samples =
      std::min(config_.training.batch_size,
               parts_.loader.num_samples() - place.position * config_.training.batch_size);
  const std::vector<MicroBatch> micro_batches = prepare(batch, samples);
  const StepContext context{.step = step_,
                            .progress = progress_,
                            .global_samples = samples,
                            .collective = parts_.collective,
                            .expect_last_backward = [this] { reducer_->expect_last_backward(); }};
  const double learning_rate =
      config_.optimizer.learning_rate * learning_rate_scale(config_.schedule, step_, total_steps_);
  optimizer_->set_learning_rate(learning_rate);
  average_.update();
  gates_.begin(step_);
  progress_.fill_(static_cast<double>(step_) / static_cast<double>(total_steps_));
  if (copies_) copies_->refresh();  // a recorded step does not look whether they are up to date
  std::vector<at::Tensor> figures = recorder_.run(
      micro_batches,
      [&](std::span<const MicroBatch> inputs) {
        parts_.task.before_step(inputs, context);
        reducer_->zero();
        if (saturated_.defined()) saturated_.zero_();
        fp8_weights_.forget();
        const at::Tensor loss = parts_.task.forward_backward(inputs, context);
        reducer_->finish();
        std::vector<at::Tensor> found = apply_gradients();
        found.insert(found.begin(), loss);
        return found;
      },
      kind_of_step());
  if (waited_) recorder_.disable();
  if (gates_.has_gates()) figures.push_back(gates_.finish(parts_.collective));
  parts_.task.after_step(context);
  ++step_;
  report(figures, learning_rate, samples);
}

/// A gradient that is not finite changes nothing; the host hears of it a step later. The gradient's norm and,
/// where the loss is scaled, what became of its scale and the casts that saturated.
std::vector<at::Tensor> Trainer::apply_gradients() {
  const at::Tensor scale = loss_scale_ ? loss_scale_->scale() : at::Tensor();
  const at::Tensor norm = optimizer_->gradient_norm(scale);
  optimizer_->step({.norm = norm, .divisor = scale});
  if (!loss_scale_) return {norm};
  const at::Tensor overflow = norm.isfinite().logical_not().to(at::kFloat);
  return {norm, loss_scale_->update(overflow), saturated_.to(at::kFloat).view({1})};
}

/// `figures`: this rank's share of the loss, what `apply_gradients` found, and what gates did, if there are
/// any.
void Trainer::report(const std::vector<at::Tensor>& figures, double learning_rate, int64_t samples) {
  const torch::NoGradGuard no_grad;
  const at::Tensor loss = figures[0].view({1}), norm = figures[1].view({1});
  const double max_seconds = config_.training.max_seconds;
  const bool stop = stop_signal_.requested() || (max_seconds > 0 && monitor_->seconds() > max_seconds);
  std::vector<at::Tensor> summed = {loss, at::full_like(loss, stop ? 1.0 : 0.0)};
  if (loss_scale_) summed.push_back(figures[3].to(loss.scalar_type()));
  at::Tensor shared = at::cat(summed);
  parts_.collective.all_reduce(shared);
  std::vector<at::Tensor> values = {shared.slice(0, 0, 1), norm, shared.slice(0, 1, 2)};
  if (loss_scale_) values.push_back(figures[2]);
  if (gates_.has_gates()) values.push_back(figures.back());
  if (loss_scale_) values.push_back(shared.slice(0, 2));
  for (at::Tensor& value : values) value = value.to(shared.scalar_type());
  monitor_->add({.step = step_,
                 .learning_rate = learning_rate,
                 .samples = samples,
                 .wait_seconds = parts_.loader.wait_seconds(),
                 .values = DeferredRead(at::cat(values), parts_.runtime)});
}

}  // namespace fathom
