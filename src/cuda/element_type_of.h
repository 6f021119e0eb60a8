// What a kernel must know of a tensor. For files that see LibTorch.
#pragma once

#include <ATen/core/Tensor.h>

#include "base/error.h"
#include "cuda/element_type.h"

namespace fathom::cuda {

/// Errors (kInternal): not a floating type of ours; `op` is named.
inline ElementType element_type_of(const at::Tensor& x, const char* op) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return ElementType::kFloat;
    case at::kDouble:
      return ElementType::kDouble;
    case at::kHalf:
      return ElementType::kHalf;
    case at::kBFloat16:
      return ElementType::kBFloat16;
    default:
      fail(ErrorKind::kInternal, "[{}] expected a floating type, got {}", op, c10::toString(x.scalar_type()));
  }
}

/// `x` dense, where vectors of 16 bytes may begin.
inline at::Tensor aligned16(const at::Tensor& x) {
  const auto dense = x.contiguous();
  return are_aligned16({dense.const_data_ptr()}) ? dense : dense.clone();
}

}  // namespace fathom::cuda
