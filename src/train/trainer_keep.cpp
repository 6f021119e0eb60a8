// What the trainer does between steps: evaluate, save, and go on from what was saved.
#include <torch/torch.h>

#include <chrono>

#include "base/error.h"
#include "base/log.h"
#include "train/recipe_change.h"
#include "train/trainer.h"

namespace fathom {
namespace {

bool is_due(int64_t step, int64_t every) {
  return every > 0 && step % every == 0;
}

}  // namespace

/// Work that is no training: everything before it is settled, and its time is not counted as training.
void Trainer::apart(const std::function<void()>& work) {
  monitor_->flush();
  const auto start = std::chrono::steady_clock::now();
  work();
  monitor_->exclude(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

void Trainer::keep_what_is_due() {
  if (is_due(step_, config_.evaluation.every)) apart([this] { evaluate(); });
  // On every rank, since `apart` settles votes to stop: ranks must hear of them after the same step.
  if (is_due(step_, config_.checkpoint.model_every)) apart([this] { keep_model(); });
  // The last state is left to `finish`, so that it knows of the last evaluation.
  if (is_due(step_, config_.checkpoint.every)) {
    apart([this] {
      if (!is_over()) save_state();
    });
  }
}

void Trainer::keep_model() {
  if (!is_main()) return;
  save_model(folder_.model_at(step_));
  folder_.prune_models(config_.checkpoint.keep_models);
}

/// Rank 0 evaluates; what it finds decides on every rank.
void Trainer::evaluate() {
  if (evaluated_step_ == step_) return;
  const int64_t former = evaluated_step_;
  evaluated_step_ = step_;
  saved_step_ = -1;  // what was saved of this step knows nothing of its evaluation
  at::Tensor verdict = at::zeros({1}, at::TensorOptions().dtype(at::kFloat).device(parts_.runtime.device()));
  if (is_main()) {
    try {
      judge();
    } catch (const Error& error) {
      evaluated_step_ = former;
      if (error.kind() == ErrorKind::kData) save_before_failing();
      throw;
    }
    verdict.fill_(best_.should_stop() ? 1.0 : 0.0);
  }
  parts_.collective.broadcast(verdict);
  stops_early_ = verdict.item<float>() > 0;
}

void Trainer::judge() {
  const AveragedWeights averaged(average_);
  const torch::NoGradGuard no_grad;
  gates_.let_choose();
  metrics_ = parts_.task.evaluate();
  if (metrics_.empty()) return;
  monitor_->evaluated(step_, metrics_);
  if (gates_.is_settled(step_) && best_.judge(metrics_, step_))
    parts_.task.save_model(folder_.model(), model_record());
}

Json Trainer::model_record() const {
  Json record = config_.record;
  record["step"] = step_;
  record["evaluation"] = figures_json(evaluated_step_ == step_ ? metrics_ : Metrics{});
  record["recipe"] = config_.recipe;
  return record;
}

void Trainer::save_model(const std::string& folder) {
  const AveragedWeights averaged(average_);
  parts_.task.save_model(folder, model_record());
}

/// What a run leaves: its last training state, and in model/ the best model, or the last where none was
/// evaluated.
void Trainer::finish(StopReason reason) {
  // Who sends a signal may not wait.
  if (reason != StopReason::kRequested && config_.evaluation.at_end) apart([this] { evaluate(); });
  apart([this] { save_state(); });
  if (is_main() && !best_.value()) save_model(folder_.model());
}

void Trainer::save_state() {
  if (saved_step_ == step_) return;
  saved_step_ = step_;
  parts_.collective.check();
  if (!is_main()) return;
  monitor_->sync();
  save_checkpoint(folder_.checkpoints(), state());
  prune_checkpoints(folder_.checkpoints(), config_.checkpoint.keep);
}

/// REQUIRES that nothing of the next step is done. No rank waits for another here; the others, who wait for
/// rank 0's gradients, do so until the state is written.
void Trainer::save_before_failing() {
  if (!is_main() || step_ == 0) return;
  try {
    apart([this] { save_state(); });
    log::info("the training state after step {} is saved: --resume goes on from it", step_);
  } catch (const Error& error) {
    log::warning("the training state after step {} is not saved: {}", step_, error.what());
  }
}

TensorMap Trainer::weights() const {
  TensorMap weights;
  for (const auto& [name, parameter] : parameters_) weights[name] = parameter.detach();
  return weights;
}

TrainingState Trainer::state() const {
  TrainingState state{.step = step_};
  state.tensors["model"] = weights();
  state.tensors["optimizer"] = optimizer_->state();
  if (average_.active()) state.tensors["average"] = average_.state();
  if (gates_.has_gates()) state.tensors["gates"] = gates_.state();
  if (loss_scale_) state.tensors["loss_scale"] = loss_scale_->state();
  if (TensorMap task = parts_.task.state(); !task.empty()) state.tensors["task"] = std::move(task);
  const SamplerState place = parts_.loader.state();
  Json data = Json::object();
  data["epoch"] = place.epoch;
  data["position"] = place.position;
  state.values["data"] = data;
  state.values["evaluated_step"] = evaluated_step_;
  state.values["evaluation"] = metrics_to_json(metrics_);
  state.values["stops_early"] = stops_early_;
  state.values["best"] = best_.state();
  state.values["monitor"] = monitor_->state();
  state.values["recipe"] = config_.recipe;
  return state;
}

namespace {

const TensorMap& group_of(const TrainingState& state, const char* group) {
  static const TensorMap kNone;
  const auto found = state.tensors.find(group);
  return found == state.tensors.end() ? kNone : found->second;
}

void load_weights(const TensorMap& saved, const TensorMap& weights) {
  const torch::NoGradGuard no_grad;
  for (auto& [name, weight] : weights) {
    const auto found = saved.find(name);
    if (found == saved.end() || found->second.sizes() != weight.sizes())
      fail(ErrorKind::kCheckpoint, "the training state is of another model: {} is {}", name,
           found == saved.end() ? "absent" : "of another shape");
    at::Tensor(weight).copy_(found->second);
  }
  if (saved.size() != weights.size())
    fail(ErrorKind::kCheckpoint, "the training state is of another model: it has {} tensors, expected {}",
         saved.size(), weights.size());
}

}  // namespace

void Trainer::load_state(const TrainingState& state) {
  const Json& values = state.values;
  check_resumed_recipe(values.at("recipe"), config_.recipe, /*warns=*/is_main());
  load_weights(group_of(state, "model"), weights());
  optimizer_->load_state(group_of(state, "optimizer"));
  average_.load_state(group_of(state, "average"));
  gates_.load_state(group_of(state, "gates"));
  if (loss_scale_) loss_scale_->load_state(group_of(state, "loss_scale"));
  parts_.task.load_state(group_of(state, "task"));
  const Json& data = values.at("data");
  parts_.loader.resume({.epoch = data.at("epoch").as_int(), .position = data.at("position").as_int()});
  evaluated_step_ = values.at("evaluated_step").as_int();
  metrics_ = metrics_from_json(values.at("evaluation"));
  stops_early_ = values.at("stops_early").as_bool();
  best_.load_state(values.at("best"));
  step_ = saved_step_ = state.step;
  start_monitor();
  monitor_->load_state(values.at("monitor"));
  // By the saved clock, which is every rank's.
  const double max_seconds = config_.training.max_seconds;
  time_is_up_ = max_seconds > 0 && values.at("monitor").at("seconds").as_double() > max_seconds;
}

/// Rank 0 chooses the state, so that all go on from the same one.
bool Trainer::resume() {
  std::optional<TrainingState> state;
  if (is_main()) state = load_latest_checkpoint(folder_.checkpoints());
  at::Tensor chosen = at::full({1}, state ? state->step : int64_t{-1},
                               at::TensorOptions().dtype(at::kLong).device(parts_.runtime.device()));
  parts_.collective.broadcast(chosen);
  const int64_t step = chosen.item<int64_t>();
  if (step < 0) return false;
  const std::string path = checkpoint_path(folder_.checkpoints(), step);
  if (!state) state = load_checkpoint(path);
  try {
    load_state(*state);
  } catch (const Error& error) {
    fail(error.kind(), "{}: {}", path, error.what());
  }
  return true;
}

}  // namespace fathom
