// One update of many parameters: clipping, AdamW, half-precision copies and moving averages in one pass over
// all of them, and the norm of their gradients, without a wait for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/adamw_formula.h"

namespace fathom::kernels {

/// What belongs together stands at the same place of each list. All dense, on one device.
struct AdamWTensors {
  std::vector<at::Tensor> parameters;     ///< float32 or float64
  std::vector<at::Tensor> gradients;      ///< of the parameter's type; of float32 also float16 or bfloat16
  std::vector<at::Tensor> first, second;  ///< moments, of the parameter's type
  std::vector<at::Tensor> averages;       ///< moving averages of the parameter's type; undefined: none
  std::vector<at::Tensor> copies;         ///< of the new parameter in bfloat16, or float16 within its range
                                          ///< (half_range.h); undefined: none
  std::vector<double> learning_rate_scales, weight_decays;
};

/// Scalars on the device. What they hold may change where steps are recorded.
struct AdamWTerms {
  at::Tensor step;            ///< float32: updates so far. Counted here
  at::Tensor learning_rate;   ///< each parameter takes it times its scale
  at::Tensor average_weight;  ///< share of the new parameter in its average; undefined without averages
  at::Tensor
      norm;  ///< of the gradients; clips them, and where it is not finite nothing changes. Or undefined
  at::Tensor
      divisor;  ///< what gradients are divided by (a loss scale); `norm` is of what that leaves. Or undefined
  at::Tensor skip;       ///< where it is not 0 nothing changes; or undefined
  at::Tensor saturated;  ///< int64: the elements of copies that lay beyond float16 are added. Or undefined
};

/// Where a device's kernels find the tensors of a list: made at first use, and anew where one of them has
/// moved, which recorded work does not see.
class AdamWTable {
 public:
  const at::Tensor& of(at::TensorList tensors, at::ArrayRef<double> rates);

 private:
  struct Place {
    const void* begin;
    int64_t size;
    at::ScalarType type;
    bool operator==(const Place&) const = default;
  };
  std::vector<Place> places_;
  std::vector<double> rates_;
  at::Tensor table_;
};

/// 2-norm of all gradients ÷ divisor (or undefined), a float64 scalar on their device, the same in every run.
at::Tensor gradient_norm(const AdamWTensors& tensors, const at::Tensor& divisor, AdamWTable& table);

/// AdamW with decoupled decay (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019) of
/// every parameter w: g ← g ÷ divisor · min(1, max_norm ÷ norm), m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g²,
/// w ← w − ηλw − η·m̂ ÷ (√v̂ + ε); then average ← average + weight·(w − average) and copy ← w. What else lies
/// in the tensors' memory, gradients included, stays. No gradient.
void adamw_step(const AdamWTensors& tensors, const AdamWTerms& terms, const AdamWSettings& settings,
                AdamWTable& table);

/// By LibTorch's own operations; lists are flat as in adamw_lists.h, tables are not read.
namespace adamw_step_ref {
at::Tensor norm(at::TensorList gradients, const std::optional<at::Tensor>& divisor, const at::Tensor& table);
void apply_flat(at::TensorList tensors, at::TensorList scalars, const at::Tensor& table,
                at::ArrayRef<double> rates, at::ArrayRef<double> settings);
void apply(const AdamWTensors& tensors, const AdamWTerms& terms, const AdamWSettings& settings);
}  // namespace adamw_step_ref

}  // namespace fathom::kernels
