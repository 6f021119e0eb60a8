#include "train/best_model.h"

#include <cmath>

#include "base/error.h"

namespace fathom {

BestModel::BestModel(const EvaluationConfig& config, std::string default_metric)
    : config_(config), metric_(config.metric.empty() ? std::move(default_metric) : config.metric) {}

void require_metric(const std::string& metric, const Metrics& figures) {
  if (figures.contains(metric)) return;
  std::string names;
  for (const auto& [name, figure] : figures) names += (names.empty() ? "" : ", ") + name;
  fail(ErrorKind::kConfig, "evaluation.metric: the evaluation has no \"{}\"; it has {}", metric, names);
}

bool BestModel::judge(const Metrics& metrics, int64_t step) {
  require_metric(metric_, metrics);
  const auto [value, higher_is_better] = metrics.at(metric_);
  const double gain = value_ ? (higher_is_better ? value - *value_ : *value_ - value) : 0;
  if (!std::isfinite(value) || (value_ && gain <= config_.min_improvement)) {
    ++num_without_improvement_;
    return false;
  }
  value_ = value;
  step_ = step;
  num_without_improvement_ = 0;
  return true;
}

bool BestModel::should_stop() const {
  return config_.patience > 0 && num_without_improvement_ >= config_.patience;
}

Json BestModel::state() const {
  Json state = Json::object();
  if (value_) state["value"] = *value_;
  state["step"] = step_;
  state["without_improvement"] = num_without_improvement_;
  return state;
}

void BestModel::load_state(const Json& state) {
  if (const Json* value = state.find("value")) value_ = value->as_double();
  step_ = state.at("step").as_int();
  num_without_improvement_ = state.at("without_improvement").as_int();
}

}  // namespace fathom
