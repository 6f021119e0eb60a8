#include "train/monitor.h"

#include <cmath>

#include "base/error.h"

namespace fathom {
namespace {

double seconds_between(std::chrono::steady_clock::time_point start,
                       std::chrono::steady_clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

/// What is no number is left out: the gradient's norm where every step overflowed.
EventWriter::Scalars to_scalars(const std::string& prefix, const Json& line) {
  EventWriter::Scalars scalars;
  for (const auto& [name, value] : line.as_object())
    if (name != "step" && value.is_number() && std::isfinite(value.as_double()))
      scalars.emplace_back(prefix + name, value.as_double());
  return scalars;
}

/// For messages: the sign of what is no number says nothing.
double without_sign(double value) {
  return std::isnan(value) ? std::fabs(value) : value;
}

/// Whether a smaller loss scale may help against a loss or norm that is no number: not a scale of 1, or of 0
/// for none. Errors (kConfig): it cannot.
void judge_overflow(int64_t step, double loss, double norm, double scale) {
  if (!std::isfinite(loss) || scale == 0)
    fail(ErrorKind::kConfig,
         "step {}: the loss is {} and the norm of its gradient {}; this step changed no weight. A lower "
         "learning_rate, a longer warm-up or cleaner data may help; --resume goes on from the last training "
         "state",
         step, without_sign(loss), without_sign(norm));
  if (scale <= 1)
    fail(ErrorKind::kConfig,
         "step {}: the norm of the gradient is {} at a loss scale of 1, below which it does not fall; this "
         "step changed no weight. A lower learning_rate or precision = \"bf16\" may help; --resume goes on "
         "from the last training state",
         step, without_sign(norm));
}

}  // namespace

Monitor::Monitor(const MonitorSetup& setup, DeviceRuntime& runtime) : setup_(setup), runtime_(runtime) {
  if (setup.run_folder.empty()) return;
  log_.emplace(setup.run_folder + "/log.jsonl", setup.start_step);
  events_.emplace(setup.run_folder, setup.start_step);
  progress_.emplace("train", setup.total_steps, setup.start_step);
}

void Monitor::add(StepRecord record) {
  pending_.push_back(std::move(record));
  while (pending_.size() > 1) {
    settle(pending_.front());
    pending_.pop_front();
  }
}

void Monitor::flush() {
  for (const StepRecord& record : pending_) settle(record);
  pending_.clear();
}

void Monitor::settle(const StepRecord& record) {
  const std::vector<double> values = record.values.get();
  const double loss = values[0];
  const double norm = values[1];
  if (setup_.scales_loss) {
    loss_scale_ = values[3];
    skipped_steps_ = values[4];
  }
  const bool overflows = !std::isfinite(norm);
  if (!std::isfinite(loss) || overflows)
    judge_overflow(record.step, loss, norm, setup_.scales_loss ? loss_scale_ : 0);
  last_loss_ = loss;
  stop_requested_ = stop_requested_ || values[2] > 0;
  interval_.loss_sum += loss;
  if (!overflows) interval_.norm_sum += norm;
  interval_.overflows += overflows ? 1 : 0;
  interval_.further_sums.resize(setup_.further_figures.size());
  for (size_t i = 0; i < interval_.further_sums.size(); ++i)
    interval_.further_sums[i] += values[first_further() + i];
  interval_.timed_samples += record.samples;
  ++interval_.steps;
  note_ = fmt::format("loss {:.4f}", loss);
  if (progress_) progress_->update(record.step, note_);
  if (record.step % setup_.log_every == 0) write_line(record);
}

Json Monitor::throughput(const StepRecord& record) const {
  const double elapsed =
      std::max(1e-9, seconds_between(interval_.start, record.given) - interval_.excluded_seconds);
  const double samples_per_second = static_cast<double>(interval_.timed_samples) / elapsed;
  Json line = Json::object();
  line["samples_per_second"] = samples_per_second;
  if (setup_.tokens_per_sample > 0)
    line["tokens_per_second"] = samples_per_second * static_cast<double>(setup_.tokens_per_sample);
  if (setup_.questions_per_sample > 0)
    line["questions_per_second"] = samples_per_second * setup_.questions_per_sample;
  line["data_wait_share"] = (record.wait_seconds - interval_.wait_start) / elapsed;
  line["memory_mb"] = static_cast<double>(runtime_.memory().peak_bytes) / (1 << 20);
  if (setup_.peak_flops > 0) line["mfu"] = samples_per_second * setup_.flops_per_sample / setup_.peak_flops;
  return line;
}

void Monitor::write_line(const StepRecord& record) {
  Json line = Json::object();
  line["step"] = record.step;
  line["loss"] = interval_.loss_sum / static_cast<double>(interval_.steps);
  line["learning_rate"] = record.learning_rate;
  line["gradient_norm"] = interval_.norm_sum / static_cast<double>(interval_.steps - interval_.overflows);
  if (setup_.scales_loss) {
    line["loss_scale"] = loss_scale_;
    line["skipped_steps"] = skipped_steps_;
  }
  for (size_t i = 0; i < interval_.further_sums.size(); ++i)
    line[setup_.further_figures[i]] = interval_.further_sums[i] / static_cast<double>(interval_.steps);
  if (log_) {
    const Json speed = throughput(record);
    for (const auto& [name, value] : speed.as_object()) line[name] = value;
    line["seconds"] = seconds();
    log_->write(line);
    events_->write(record.step, to_scalars("train/", line));
  }
  interval_ = Interval{.wait_start = record.wait_seconds, .start = record.given};
}

void Monitor::evaluated(int64_t step, const Metrics& metrics) {
  if (!log_) return;
  Json figures = Json::object();
  for (const auto& [name, metric] : metrics) figures[name] = metric.value;
  Json line = Json::object();
  line["step"] = step;
  line["evaluation"] = figures;
  line["seconds"] = seconds();
  log_->write(line);
  events_->write(step, to_scalars("evaluation/", figures));
}

void Monitor::sync() {
  flush();
  if (!log_) return;
  log_->sync();
  events_->flush();
}

double Monitor::seconds() const {
  return former_seconds_ + seconds_between(started_, Clock::now());
}

Json Monitor::state() const {
  FATHOM_CHECK(pending_.empty(), "[monitor] expected nothing unsettled, got {} steps", pending_.size());
  Json state = Json::object();
  state["loss_sum"] = interval_.loss_sum;
  state["norm_sum"] = interval_.norm_sum;
  for (const double sum : interval_.further_sums) state["further_sums"].push_back(sum);
  state["steps"] = interval_.steps;
  state["overflows"] = interval_.overflows;
  state["last_loss"] = last_loss_;
  state["seconds"] = seconds();
  return state;
}

void Monitor::load_state(const Json& state) {
  interval_ = Interval{.loss_sum = state.at("loss_sum").as_double(),
                       .norm_sum = state.at("norm_sum").as_double(),
                       .steps = state.at("steps").as_int()};
  if (const Json* overflows = state.find("overflows")) interval_.overflows = overflows->as_int();
  if (const Json* sums = state.find("further_sums"))
    for (const Json& sum : sums->as_array()) interval_.further_sums.push_back(sum.as_double());
  last_loss_ = state.at("last_loss").as_double();
  former_seconds_ = state.at("seconds").as_double();
}

}  // namespace fathom
