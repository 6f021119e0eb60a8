#include "train/weight_average.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"

namespace fathom {

WeightAverage::WeightAverage(const NamedParameters& parameters, double decay) : decay_(decay) {
  if (decay <= 0) return;
  for (const auto& [name, parameter] : parameters) {
    names_.push_back(name);
    weights_.push_back(parameter.detach());
    average_.push_back(parameter.detach().clone());
  }
}

void WeightAverage::update() {
  if (!active()) return;
  const torch::NoGradGuard no_grad;
  const auto t = static_cast<double>(num_updates_++);
  at::_foreach_lerp_(average_, weights_, 1 - std::min(decay_, (1 + t) / (10 + t)));
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
