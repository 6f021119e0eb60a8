// Where gradients are to lie.
#pragma once

#include <ATen/core/Tensor.h>

#include "tensor/side_stream.h"

namespace fathom {

/// Memory in which gradients of parameters end up in any case. A backward pass that writes a gradient there,
/// and gives autograd what it wrote, spares the passes that clear the memory and bring the gradient to it.
/// One thread, and one backward pass of a parameter, at a time.
class GradientRooms {
 public:
  virtual ~GradientRooms() = default;
  /// Dense memory for one contribution to the gradient of `parameter`, of that gradient's shape and type,
  /// whose content means nothing: the first contribution of a step alone is given any. Undefined: there is
  /// none, and the gradient may lie anywhere. What is written there holds until the step's gradients are
  /// whole.
  virtual at::Tensor take(const at::Tensor& parameter) = 0;
  /// Where first contributions to gradients may be made: they are joined before the step's gradients are
  /// read. Null: nowhere, and they are made as others are.
  virtual SideStream* side() { return nullptr; }
};

}  // namespace fathom
