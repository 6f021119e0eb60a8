// What the backward passes of linear layers share.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <utility>
#include <vector>

#include "tensor/gradient_rooms.h"

namespace fathom::kernels {

/// What a backward pass needs of a weight beside its operand. The room's owner outlives the pass.
struct WeightHolder : torch::CustomClassHolder {
  WeightHolder(at::Tensor w, GradientRooms* r) : weight(std::move(w)), rooms(r) {}
  /// Of the product's gradient and its rows, in the weight's type; float32 is summed and written at once on a
  /// GPU, and of operands in FP16.
  at::Tensor gradient(const at::Tensor& grad, const at::Tensor& rows) const;

  at::Tensor weight;
  GradientRooms* rooms;
};

/// Keeps what `weight_gradient` and `bias_type` ask for: of a function whose inputs begin with x, weight and
/// bias.
void keep_parameters(torch::autograd::AutogradContext& context, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias, GradientRooms* rooms);

/// What `bias_type` asks for, alone.
void keep_bias_type(torch::autograd::AutogradContext& context, const std::optional<at::Tensor>& bias);

/// The same of that weight; undefined where none is asked for.
at::Tensor weight_gradient(torch::autograd::AutogradContext& context, const at::Tensor& grad,
                           const at::Tensor& rows);

/// The sizes of x with another last one.
inline std::vector<int64_t> with_last(const at::Tensor& x, int64_t last) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = last;
  return shape;
}

/// Of the bias's gradient; nothing where none is asked for.
std::optional<at::ScalarType> bias_type(torch::autograd::AutogradContext& context);

}  // namespace fathom::kernels
