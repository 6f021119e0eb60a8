// Layouts that the loops of CPU kernels take. For `*_cpu.cpp` files.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

/// `x` with the elements of its last dimension side by side.
inline at::Tensor with_dense_rows(const at::Tensor& x) {
  return x.stride(-1) == 1 ? x : x.contiguous();
}

}  // namespace fathom::kernels
