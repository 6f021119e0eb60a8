// Where kernels count casts to FP16 that saturate. For files that see LibTorch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "base/error.h"

namespace fathom::cuda {

/// Null where nobody counts. Errors (kInternal): no int64 scalar on x's device; `op` is named.
inline int64_t* saturation_count(const std::optional<at::Tensor>& saturated, const at::Tensor& x,
                                 const char* op) {
  if (!saturated) return nullptr;
  FATHOM_CHECK(
      saturated->scalar_type() == at::kLong && saturated->numel() == 1 && saturated->device() == x.device(),
      "[{}] expected an int64 count of saturated casts on {}", op, x.device().str());
  return saturated->mutable_data_ptr<int64_t>();
}

}  // namespace fathom::cuda
