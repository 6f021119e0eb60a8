#include "train/loss_scale.h"

#include <torch/torch.h>

#include "base/error.h"

namespace fathom {
namespace {

/// Above it a run without gradients would, in time, come to scaled losses that are no number.
constexpr double kLargestLossScale = 0x1p40;

}  // namespace

void LossScaleConfig::fields(Fields& f) {
  f("initial", initial, "under fp16_bf16 and fp8: what the loss is multiplied with at first",
    {.low = 1, .high = kLargestLossScale});
  f("growth_interval", growth_interval,
    "steps without overflow after which it doubles; each overflow halves it", {.low = 1});
}

LossScale::LossScale(const LossScaleConfig& config, at::Device device)
    : config_(config),
      scale_(at::full({}, config.initial, at::TensorOptions().dtype(at::kFloat).device(device))),
      clean_(at::zeros({}, scale_.options().dtype(at::kInt))),
      skipped_(at::zeros_like(scale_)) {}

at::Tensor LossScale::update(const at::Tensor& overflow) {
  const torch::NoGradGuard no_grad;
  skipped_.add_(overflow);
  const at::Tensor figures = at::stack({scale_, skipped_});
  at::_amp_update_scale_(scale_, clean_, overflow, /*scale_growth_factor=*/2.0, /*scale_backoff_factor=*/0.5,
                         config_.growth_interval);
  scale_.clamp_(1.0, kLargestLossScale);
  return figures;
}

TensorMap LossScale::state() const {
  return {{"scale", scale_}, {"clean_steps", clean_}, {"skipped_steps", skipped_}};
}

void LossScale::load_state(const TensorMap& state) {
  if (state.empty()) return;
  const torch::NoGradGuard no_grad;
  for (auto& [name, tensor] : this->state()) {
    const auto found = state.find(name);
    if (found == state.end() || found->second.sizes() != tensor.sizes())
      fail(ErrorKind::kCheckpoint, "the training state has no {} of a loss scale", name);
    tensor.copy_(found->second);
  }
  clean_.clamp_max_(config_.growth_interval - 1);  // which may be shorter now, and is waited for exactly
}

}  // namespace fathom
