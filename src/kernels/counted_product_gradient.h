// What the backward passes of layers over counted rows share: gradients of products' weights, written where
// they are to lie, and beside what the pass waits for.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>
#include <vector>

#include "kernels/counted_gradients.h"
#include "tensor/gradient_rooms.h"

namespace fathom::kernels {

/// Whether autograd keeps the gradient of a step's first pass as it is: it neither hands it on nor casts it
/// nor adds it to others.
inline bool is_kept(const at::Tensor& weight) {
  return weight.is_leaf() && weight.scalar_type() == at::kFloat && !weight.grad().defined();
}

/// Whether nobody but the caller holds `grad`, or its elements.
inline bool is_spare(const at::Tensor& grad) {
  return grad.use_count() == 1 && grad.storage().use_count() == 1;
}

/// What is left of a branch's rows, of as many as the last of `count_S1` says. `key_B`: undefined: all.
inline at::Tensor dropped_rows(const at::Tensor& y, const at::Tensor& key_B, const RowDrop& drop,
                               const CountedRows& rows, const at::Tensor& count_S1) {
  if (!key_B.defined() || (drop.dropout == 0 && drop.drop_path == 0)) return y;
  return counted_dropout(y, key_B, drop, rows, count_S1);
}

/// A gradient from above, dense, that may be written over: what others hold of it stays as it is.
inline at::Tensor own_gradient(const at::Tensor& above) {
  const bool spare = is_spare(above);
  const at::Tensor grad = above.contiguous();
  return grad.is_same(above) && !spare ? grad.clone() : grad;
}

/// Of a function whose inputs are x and, behind it, `weights`.
class CountedProductGradient {
 public:
  using Context = torch::autograd::AutogradContext;
  using Gradients = torch::autograd::variable_list;

  CountedProductGradient(Context& context, const std::vector<at::Tensor>& weights, GradientRooms* rooms,
                         const CountedRows& rows, Gradients& grads)
      : context_(context), weights_(weights), rooms_(rooms), rows_(rows), grads_(grads) {}

  /// The gradient of the product's rows `x`, by that of its result. `cast`: the weight that was multiplied
  /// with, whose own gradient takes its place among all.
  at::Tensor operator()(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& cast, size_t weight) {
    if (!context_.needs_input_grad(1 + weight)) return counted_input_grad(grad, cast, rows_);
    at::Tensor room = room_of(weights_[weight], cast);
    if (SideStream* side = side_stream())
      side->run([&] { counted_weight_grad(grad, x, rows_, room); }, {grad, x, rows_.start_S1});
    else
      counted_weight_grad(grad, x, rows_, room);
    grads_[1 + weight] = std::move(room);
    return counted_input_grad(grad, cast, rows_);
  }

  /// To be called before these gradients are handed on. Nobody reads those that are kept before the step's
  /// are whole, so the next layer may begin beside the last of them.
  void join() const {
    SideStream* side = side_stream();
    if (side == nullptr) return;
    if (are_kept_)
      side->join_former();
    else
      side->join();
  }

 private:
  SideStream* side_stream() const { return rooms_ != nullptr ? rooms_->side() : nullptr; }

  /// Float32 for a weight of that type, and then where it is to lie.
  at::Tensor room_of(const at::Tensor& weight, const at::Tensor& cast) {
    const auto type = weight.scalar_type() == at::kFloat ? at::kFloat : cast.scalar_type();
    at::Tensor room;
    if (rooms_ != nullptr && weight.scalar_type() == type) room = rooms_->take(weight);
    are_kept_ = are_kept_ && room.defined() && is_kept(weight);
    return room.defined() ? room : at::empty(cast.sizes(), cast.options().dtype(type));
  }

  Context& context_;
  const std::vector<at::Tensor>& weights_;
  GradientRooms* rooms_;
  const CountedRows& rows_;
  Gradients& grads_;
  bool are_kept_ = true;  ///< all gradients so far, by autograd, as they are
};

}  // namespace fathom::kernels
