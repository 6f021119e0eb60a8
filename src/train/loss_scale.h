// What keeps gradients clear of both ends of FP16: the loss is multiplied before the backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "base/config.h"
#include "tensor/tensor_file.h"

namespace fathom {

struct LossScaleConfig {
  double initial = 65536;
  int64_t growth_interval = 2000;

  void fields(Fields& f);
};

/// Doubles after so many steps without overflow and halves on each overflow. Source: Micikevicius et al.,
/// "Mixed precision training", ICLR 2018, section 3.2, with the automatic choice of NVIDIA's guide to it. All
/// of it stays on the device, in the same memory at every step, since steps are recorded; what is summed over
/// ranks decides, so that every rank comes to the same. One thread.
class LossScale {
 public:
  LossScale(const LossScaleConfig& config, at::Device device);

  /// Float32 scalar, a power of two where the initial one is, at least 1.
  const at::Tensor& scale() const { return scale_; }
  /// After a step. `overflow`: float32 scalar, 1 where the step's gradient is no finite number, else 0.
  /// Result: float32 [2], the scale that the step had and the steps skipped so far. At 1 the scale falls no
  /// further: whoever reads it beside a gradient that overflowed must stop the run.
  at::Tensor update(const at::Tensor& overflow);

  /// "scale", "clean_steps" and "skipped_steps": views of the living tensors.
  TensorMap state() const;
  /// An empty state, of a run without a scale, leaves all as it is. Errors (kCheckpoint): a tensor is absent.
  void load_state(const TensorMap& state);

 private:
  LossScaleConfig config_;
  at::Tensor scale_;
  at::Tensor clean_;    ///< int32: steps since the scale last changed
  at::Tensor skipped_;  ///< float32: steps that overflowed
};

}  // namespace fathom
