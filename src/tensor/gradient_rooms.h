// Where gradients are to lie.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "tensor/side_stream.h"

namespace fathom {

/// Memory in which gradients of parameters end up in any case. A pass that writes a gradient there, and gives
/// autograd what it wrote, spares the passes that clear the memory and bring the gradient to it.
/// One thread, and one backward pass of a parameter, at a time.
class GradientRooms {
 public:
  virtual ~GradientRooms() = default;
  /// Dense memory for one contribution to the gradient of `parameter`, of that gradient's shape and type,
  /// whose content means nothing: the first contribution of a step alone is given any. Undefined: there is
  /// none, and the gradient may lie anywhere. What is written there holds until the step's gradients are
  /// whole, so a forward pass may write what its backward pass gives to autograd.
  virtual at::Tensor take(const at::Tensor& parameter) = 0;
  /// Has `add` add a contribution that is less than a whole gradient (rows of a table, say) to the gradient
  /// of `parameter`: at once, or as soon as what others contribute lies there, before the step's gradients
  /// are whole. False: `add` is never called, and the contribution has to go through autograd. Who asks
  /// autograd for gradients beside those of a step (`torch::autograd::grad`) hands no rooms down.
  virtual bool add(const at::Tensor& parameter, std::function<void(const at::Tensor& gradient)> add) {
    (void)parameter, (void)add;
    return false;
  }
  /// Where first contributions to gradients may be made: they are joined before the step's gradients are
  /// read, and where another contribution asks for a place. So a parameter of which one may be made there has
  /// none that does not ask. Null: nowhere, and they are made as others are.
  virtual SideStream* side() { return nullptr; }
};

}  // namespace fathom
