// What the registrations of norms share. For files that see LibTorch.
#pragma once

#include <ATen/ops/empty.h>

#include <initializer_list>

#include "cuda/element_type_of.h"
#include "cuda/norm_shape.h"

namespace fathom::cuda {

/// Whether the kernels take rows like those of `x`, dense, which lie in all of `tensors` that are defined.
inline bool norm_rows_fit(const at::Tensor& x, std::initializer_list<at::Tensor> tensors, const char* op) {
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined() && !are_aligned16({tensor.const_data_ptr()})) return false;
  return norm_row_fits(element_type_of(x, op), x.size(-1));
}

/// In float32, where vectors of 16 bytes may begin.
inline at::Tensor wide_parameters(const at::Tensor& parameters) {
  return aligned16(parameters.to(at::kFloat));
}

/// Room for a float32 figure of each row.
inline at::Tensor empty_row_figures(const at::Tensor& x) {
  auto shape = x.sizes().vec();
  shape.back() = 1;
  return at::empty(shape, x.options().dtype(at::kFloat));
}

}  // namespace fathom::cuda
