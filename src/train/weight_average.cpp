#include "train/weight_average.h"

#include <torch/torch.h>

#include <algorithm>
#include <set>

#include "base/error.h"

namespace fathom {

WeightAverage::WeightAverage(const NamedParameters& parameters, double decay) : decay_(decay) {
  if (decay <= 0) return;
  for (const auto& [name, parameter] : parameters) {
    names_.push_back(name);
    weights_.push_back(parameter.detach());
    average_.push_back(parameter.detach().clone());
  }
  own_weights_ = weights_;
  own_average_ = average_;
  if (active()) weight_ = at::zeros({}, average_.front().options().dtype(at::kDouble));
}

void WeightAverage::join(AdamW& optimizer) {
  if (!active()) return;
  optimizer.set_averages(state(), weight_);
  const std::set<std::string> moved(optimizer.names().begin(), optimizer.names().end());
  own_weights_.clear();
  own_average_.clear();
  for (size_t i = 0; i < names_.size(); ++i) {
    if (moved.contains(names_[i])) continue;
    own_weights_.push_back(weights_[i]);
    own_average_.push_back(average_[i]);
  }
}

void WeightAverage::update() {
  if (!active()) return;
  const torch::NoGradGuard no_grad;
  const auto t = static_cast<double>(num_updates_++);
  const double weight = 1 - std::min(decay_, (1 + t) / (10 + t));
  weight_.fill_(weight);
  if (!own_average_.empty()) at::_foreach_lerp_(own_average_, own_weights_, weight);
}

TensorMap WeightAverage::state() const {
  if (!active()) return {};
  TensorMap state{{"updates", at::scalar_tensor(num_updates_, at::kLong)}};
  for (size_t i = 0; i < names_.size(); ++i) state[names_[i]] = average_[i];
  return state;
}

void WeightAverage::load_state(const TensorMap& state) {
  if (!active()) return;
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < names_.size(); ++i) {
    const auto found = state.find(names_[i]);
    if (found == state.end() || found->second.sizes() != average_[i].sizes())
      fail(ErrorKind::kCheckpoint, "the moving average of {} is absent or of another shape", names_[i]);
    average_[i].copy_(found->second);
  }
  const auto updates = state.find("updates");
  if (updates == state.end()) fail(ErrorKind::kCheckpoint, "the moving average has no count of its updates");
  num_updates_ = updates->second.item<int64_t>();
}

void WeightAverage::swap() {
  if (!active()) return;
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < weights_.size(); ++i) {
    const at::Tensor kept = weights_[i].clone();
    weights_[i].copy_(average_[i]);
    average_[i].copy_(kept);
  }
}

}  // namespace fathom
